"""Sentence encoders with random weights: one of the real size, made once, and one that costs nothing."""

import hashlib
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.ovd.image_text.minilm import WIDTH, MiniLM, SentenceEncoder, WordPieces
from vision_core.randomness import seeded

_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@cache
def random_minilm() -> MiniLM:
    """22 million numbers."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    with seeded(0):
        return MiniLM(WordPieces([*_MARKS, *letters, *(f"##{letter}" for letter in letters), ".", "-"]))


class HashedWords(SentenceEncoder):
    """The mean of a random direction for each word."""

    fingerprint = "hashed words"

    def forward(self, texts: Sequence[str]) -> Tensor:
        rows = [torch.stack([_direction(word) for word in (text.split() or [""])]).mean(dim=0) for text in texts]
        return functional.normalize(torch.stack(rows), dim=1) if rows else torch.zeros(0, WIDTH)


@cache
def _direction(word: str) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:6], "little")
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
