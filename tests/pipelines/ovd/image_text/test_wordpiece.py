"""Word pieces of a vocabulary of a few."""

from pathlib import Path

import pytest

from pipelines.ovd.image_text.wordpiece import WordPieces
from vision_core.errors import CheckpointError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "un", "##aff", "##able", "cafe", "-", ".", "photo", "漢", "字", "$"]


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
