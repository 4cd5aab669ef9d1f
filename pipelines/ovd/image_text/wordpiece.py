"""Word pieces of uncased BERT models.

Source: Devlin et al., "BERT" (2019), and Wu et al., "Google's Neural Machine Translation System" (2016) for the greedy
split of a word into the longest pieces of a vocabulary.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from vision_core.errors import CheckpointError

_UNKNOWN, _BEGIN, _END = "[UNK]", "[CLS]", "[SEP]"
_LONGEST_WORD = 100
# Signs of ASCII that are split off though Unicode calls some of them symbols.
_ASCII_SIGNS = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_HAN = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPieces:
    """Tokenizer: text to numbers of word pieces, between a first and a last mark.

    Args:
        vocabulary: Pieces in the order of their numbers; those inside a word begin with ``##``.
        longest: Numbers at most, both marks among them; what is beyond is cut off.

    Raises:
        CheckpointError: The vocabulary lacks a mark.
    """

    def __init__(self, vocabulary: list[str], longest: int = 128) -> None:
        self._numbers = {piece: number for number, piece in enumerate(vocabulary)}
        self._longest = longest
        if lacking := [mark for mark in (_UNKNOWN, _BEGIN, _END) if mark not in self._numbers]:
            raise CheckpointError(f"The vocabulary of word pieces has no '{lacking[0]}'.")

    @classmethod
    def read(cls, path: Path, longest: int = 128) -> "WordPieces":
        """Read a vocabulary file, a piece a line."""
        return cls(path.read_text(encoding="utf-8").rstrip("\n").split("\n"), longest)

    def __call__(self, text: str) -> list[int]:
        """Split a text into the numbers of its pieces."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        return [self._numbers[each] for each in (_BEGIN, *pieces[: self._longest - 2], _END)]

    def _pieces(self, word: str) -> list[str]:
        """Split a word into the longest pieces from its beginning on; one unknown makes all of it unknown."""
        if len(word) > _LONGEST_WORD:
            return [_UNKNOWN]
        pieces, first = [], 0
        while first < len(word):
            prefix = "##" if first else ""
            ends = range(len(word), first, -1)
            end = next((end for end in ends if prefix + word[first:end] in self._numbers), None)
            if end is None:
                return [_UNKNOWN]
            pieces.append(prefix + word[first:end])
            first = end
        return pieces


def _words(text: str) -> Iterator[str]:
    """Split into small letters without accents, each sign and each Han character a word of its own."""
    word = ""
    for character in unicodedata.normalize("NFD", text).lower():
        category = unicodedata.category(character)
        if category == "Mn" or (category in {"Cc", "Cf", "Co", "Cs"} and character not in "\t\n\r") or character == "�":
            continue
        is_sign = character in _ASCII_SIGNS or category.startswith("P") or _is_han(ord(character))
        if is_sign or character.isspace():
            yield from (each for each in (word, character if is_sign else "") if each)
            word = ""
        else:
            word += character
    if word:
        yield word


def _is_han(code: int) -> bool:
    return any(first <= code <= last for first, last in _HAN)
