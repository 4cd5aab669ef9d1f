"""MiniLM: sentences to embeddings of 384 numbers, frozen.

Source: Wang et al., "MiniLM" (NeurIPS 2020), as fine-tuned for sentences (all-MiniLM-L6-v2): a BERT of six layers whose
outputs are averaged over the word pieces.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn
from torch.nn import functional

from vision_core.errors import CheckpointError
from vision_core.files import sha256
from vision_core.optional import require

WIDTH = 384
_LAYERS, _HEADS, _HIDDEN, _PIECES, _PLACES = 6, 12, 1536, 30522, 512
_EPSILON = 1e-12
_MARKS = ("[UNK]", "[CLS]", "[SEP]")
_NAMES = {  # ours: theirs, inside a layer
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mixed": "attention.output.dense",
    "mixed_norm": "attention.output.LayerNorm",
    "widened": "intermediate.dense",
    "narrowed": "output.dense",
    "norm": "output.LayerNorm",
}


class WordPieces:
    """Tokenizer of uncased BERT models, by the library tokenizers: text to numbers, between a first and a last mark.

    Args:
        vocabulary: Pieces in the order of their numbers; those inside a word begin with ``##``.
        longest: Numbers at most, both marks among them; what is beyond is cut off.

    Raises:
        CheckpointError: The vocabulary lacks a mark.
        MissingDependencyError: tokenizers is not installed.
    """

    def __init__(self, vocabulary: Sequence[str], longest: int = 128) -> None:
        numbers = {piece: number for number, piece in enumerate(vocabulary)}
        if lacking := [mark for mark in _MARKS if mark not in numbers]:
            raise CheckpointError(f"The vocabulary of word pieces has no '{lacking[0]}'.")
        library = require("tokenizers.implementations", "it splits words for the image–text models")
        self._tokenizer = library.BertWordPieceTokenizer(numbers, lowercase=True)
        self._tokenizer.enable_truncation(longest)

    @classmethod
    def read(cls, path: Path, longest: int = 128) -> "WordPieces":
        """Read a vocabulary file, a piece a line."""
        return cls(path.read_text(encoding="utf-8").rstrip("\n").split("\n"), longest)

    def __call__(self, text: str) -> list[int]:
        """Split a text into the numbers of its pieces."""
        return list(self._tokenizer.encode(text).ids)


class SentenceEncoder(nn.Module):
    """Frozen encoder of sentences as ``(N, 384)``, such as ``MiniLM``.

    Attributes:
        fingerprint: Hash of its weights.
    """

    fingerprint: str


class MiniLM(SentenceEncoder):
    """Sentence encoder; ``MiniLM.read(folder)`` loads ``model.safetensors`` and ``vocab.txt``.

    Args:
        pieces: Tokenizer.
        fingerprint: Hash of the weights.
    """

    def __init__(self, pieces: WordPieces, fingerprint: str = "random") -> None:
        super().__init__()
        self.fingerprint = fingerprint
        self._pieces = pieces
        self.words = nn.Embedding(_PIECES, WIDTH)
        self.places = nn.Embedding(_PLACES, WIDTH)
        self.segment = nn.Parameter(torch.zeros(WIDTH))
        self.norm = nn.LayerNorm(WIDTH, _EPSILON)
        self.layers = nn.ModuleList(_Layer() for _ in range(_LAYERS))
        self.requires_grad_(False).eval()

    @classmethod
    def read(cls, folder: Path) -> "MiniLM":
        """Load the model of a folder.

        Raises:
            CheckpointError: Files are missing or are not of this model.
        """
        weights = folder / "model.safetensors"
        try:
            tensors = safetensors.load_file(weights)
            model = cls(WordPieces.read(folder / "vocab.txt"), sha256(weights))
            model.load_state_dict(_renamed(tensors))
        except (FileNotFoundError, SafetensorError, KeyError, RuntimeError) as error:
            first = (str(error).splitlines() or ["no reason given"])[0]
            raise CheckpointError(f"'{folder}' holds no MiniLM of six layers: {first[:160]}") from error
        return model

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences as ``(N, 384)`` float32, of length 1."""
        numbers = [self._pieces(text) for text in texts]
        if not numbers:
            return self.words.weight.new_zeros(0, WIDTH)
        device = self.words.weight.device
        rows = nn.utils.rnn.pad_sequence([torch.tensor(each) for each in numbers], batch_first=True).to(device)
        lengths = torch.tensor([len(each) for each in numbers], device=device)
        is_word = torch.arange(rows.shape[1], device=device) < lengths[:, None]  # (N, L)
        states = self.norm(self.words(rows) + self.places.weight[: rows.shape[1]] + self.segment)
        for layer in self.layers:
            states = layer(states, is_word)
        summed = (states * is_word[..., None]).sum(dim=1) / lengths[:, None]
        return functional.normalize(summed, dim=1)


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mixed = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.mixed_norm, self.norm = nn.LayerNorm(WIDTH, _EPSILON), nn.LayerNorm(WIDTH, _EPSILON)
        self.widened, self.narrowed = nn.Linear(WIDTH, _HIDDEN), nn.Linear(_HIDDEN, WIDTH)

    def forward(self, states: Tensor, is_word: Tensor) -> Tensor:
        """Compute the next states ``(N, L, 384)``; ``is_word`` ``(N, L)`` tells pieces from padding."""
        query, key, value = (
            each(states).unflatten(2, (_HEADS, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=is_word[:, None, None])
        states = self.mixed_norm(states + self.mixed(seen.transpose(1, 2).flatten(2)))
        return self.norm(states + self.narrowed(functional.gelu(self.widened(states))))  # type: ignore[no-any-return]


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of a BERT our names; what pools its first piece is left out."""
    renamed = {
        "words.weight": tensors["embeddings.word_embeddings.weight"],
        "places.weight": tensors["embeddings.position_embeddings.weight"],
        "segment": tensors["embeddings.token_type_embeddings.weight"][0],
        **{f"norm.{part}": tensors[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")},
    }
    for layer in range(_LAYERS):
        for ours, theirs in _NAMES.items():
            for part in ("weight", "bias"):
                renamed[f"layers.{layer}.{ours}.{part}"] = tensors[f"encoder.layer.{layer}.{theirs}.{part}"]
    return renamed
