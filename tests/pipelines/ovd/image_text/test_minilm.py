"""The sentence encoder: its arithmetic head by head, padding, and the real weights."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import torch as safetensors
from torch import Tensor
from torch.nn import functional

from pipelines.ovd.image_text.minilm import MiniLM, WordPieces
from tests.pipelines.ovd.image_text.encoders import random_minilm
from vision_core.assets import sentence_encoder
from vision_core.errors import CheckpointError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "un", "##aff", "##able", "cafe", "-", ".", "photo", "漢", "字", "$"]


def _by_hand(model: MiniLM, numbers: list[int]) -> Tensor:
    """One sentence, a head after the other."""
    states = model.words.weight[numbers] + model.places.weight[: len(numbers)] + model.segment
    states = model.norm(states)
    for layer in list[Any](model.layers):
        query, key, value = (getattr(layer, name)(states) for name in ("query", "key", "value"))
        heads = []
        for head in range(12):
            part = slice(32 * head, 32 * head + 32)
            weights = (query[:, part] @ key[:, part].T / math.sqrt(32)).softmax(dim=1)
            heads.append(weights @ value[:, part])
        states = layer.mixed_norm(states + layer.mixed(torch.cat(heads, dim=1)))
        states = layer.norm(states + layer.narrowed(functional.gelu(layer.widened(states))))
    return functional.normalize(states.mean(dim=0), dim=0)


@torch.no_grad()
def test_forward__equals_the_sum_by_hand_and_padding_changes_nothing() -> None:
    model = random_minilm()
    texts = ["a cat.", "one more sentence of other length", ""]
    found = model(texts)
    assert found.shape == (3, 384)
    for text, row in zip(texts, found, strict=True):
        torch.testing.assert_close(row, _by_hand(model, model._pieces(text)), atol=1e-5, rtol=0)


def test_forward__no_sentence() -> None:
    assert random_minilm()([]).shape == (0, 384)


def test_parameters__are_frozen() -> None:
    assert not any(each.requires_grad for each in random_minilm().parameters())


def test_read__other_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no MiniLM"):
        MiniLM.read(tmp_path)
    safetensors.save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(CheckpointError, match="holds no MiniLM"):
        MiniLM.read(tmp_path)


def test_read__the_real_one_knows_what_is_alike() -> None:
    model = MiniLM.read(sentence_encoder())
    found = model(["a photo of a cat.", "a photo of a kitten.", "a truck"])
    expected = torch.tensor([[1.0, 0.8218, 0.2169], [0.8218, 1.0, 0.1648], [0.2169, 0.1648, 1.0]])
    torch.testing.assert_close(found @ found.T, expected, atol=1e-3, rtol=0)
    assert model._pieces("an umbrella.") == [101, 2019, 12977, 1012, 102]


def _split(text: str, longest: int = 128) -> list[str]:
    return [PIECES[number] for number in WordPieces(PIECES, longest)(text)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("A photo.", ["a", "photo", "."]),
        ("unaffable", ["un", "##aff", "##able"]),
        ("unaffablx", ["[UNK]"]),
        ("Café", ["cafe"]),
        ("photo-a", ["photo", "-", "a"]),
        ("漢字", ["漢", "字"]),
        ("a\u200b\tphoto\n$a", ["a", "photo", "$", "a"]),
        ("a" * 101, ["[UNK]"]),
        ("", []),
    ],
)
def test_split__between_two_marks(text: str, pieces: list[str]) -> None:
    assert _split(text) == ["[CLS]", *pieces, "[SEP]"]


def test_split__a_long_text_is_cut_before_the_last_mark() -> None:
    assert _split("a photo . photo", longest=4) == ["[CLS]", "a", "photo", "[SEP]"]


def test_vocabulary__without_a_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES[3:]) + "\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"no '\[UNK\]'"):
        WordPieces.read(tmp_path / "vocab.txt")


def test_vocabulary__numbers_are_lines(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    assert WordPieces.read(tmp_path / "vocab.txt")("a photo") == [2, 4, 11, 3]
