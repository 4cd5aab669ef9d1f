"""The 63 prompts of a name and their ensemble.

The list is the one that ViLD (Gu et al., ICLR 2022) made common; its order and wording are part of every embedding.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_VOWELS = "aeiou"
# "{a}" is the article that fits the name, a bare "a" is meant as it stands.
_ARTICLE_OR_THE = ("{a}", "the")
_A_OR_THE = ("a", "the")


def _templates() -> tuple[str, ...]:
    either = ("There is {d} X in the scene.", _ARTICLE_OR_THE)
    rows = [
        either,
        ("a photo of {d} X in the scene.", ("{a}", "the", "one")),
        ("itap of {d} X.", ("{a}", "my", "the")),
        ("a photo of {d} X.", ("{a}", "my", "the", "one", "many")),
        *((f"a {kind} photo of {{d}} X.", _ARTICLE_OR_THE) for kind in ("good", "bad")),
        *(
            (f"a photo of {{d}} {kind} X.", _A_OR_THE)
            for kind in ("nice", "cool", "weird", "small", "large", "clean", "dirty")
        ),
        *((f"a {kind} photo of {{d}} X.", _ARTICLE_OR_THE) for kind in ("bright", "dark")),
        ("a photo of {d} hard to see X.", _A_OR_THE),
        *(
            (f"a {kind} photo of {{d}} X.", _ARTICLE_OR_THE)
            for kind in ("low resolution", "cropped", "close-up", "jpeg corrupted", "blurry", "pixelated")
        ),
        ("a black and white photo of {d} X.", ("the", "{a}")),
        *((f"{{d}} {kind} X.", _A_OR_THE) for kind in ("plastic", "toy", "plushie", "cartoon")),
        ("{d} embroidered X.", ("an", "the")),
        ("a painting of {d} X.", ("the", "a")),
    ]
    return tuple(text.replace("{d}", determiner) for text, determiners in rows for determiner in determiners)


TEMPLATES = _templates()


def expand(name: str) -> tuple[str, ...]:
    """Write the 63 prompts of a name; underscores in it become blanks."""
    spoken = name.replace("_", " ")
    article = "an" if spoken[:1].lower() in _VOWELS and spoken else "a"
    return tuple(template.replace("{a}", article).replace("X", spoken) for template in TEMPLATES)


def prompts_hash(prompts: Sequence[str]) -> str:
    """Hash prompts as SHA-256 of their lines, without one at the end."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()


def ensemble(embeddings: Tensor) -> Tensor:
    """Join embeddings ``(..., P, D)`` of ``P`` prompts: normalise each, average, normalise: ``(..., D)`` float32."""
    return functional.normalize(functional.normalize(embeddings.float(), dim=-1).mean(dim=-2), dim=-1)


def ensemble_ragged(embeddings: Tensor, counts: Sequence[int]) -> Tensor:
    """Join embeddings ``(sum of counts, D)`` of several names, one after the other: ``(names, D)``."""
    rows = [ensemble(each) for each in embeddings.split(list(counts))]
    return torch.stack(rows) if rows else embeddings.new_zeros(0, embeddings.shape[1])
