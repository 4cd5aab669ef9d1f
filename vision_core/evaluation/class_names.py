"""Names of classes: one rule for all tasks, of when two names are one, and when a cell is no name.

Names are compared as people mean them: blanks around them, byte order marks and forms of Unicode do not count, ``1``,
``01`` and ``1.0`` are one number. Names that differ in case, blanks, hyphens or underscores alone, in dashes or quotes
that a spreadsheet has set, or in letters of another alphabet that look the same, are most likely one class that was
written in two ways; whoever means two lists both in ``data.classes``.
"""

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

_WITHOUT_VALUE = frozenset(
    {"", "nan", "na", "n/a", "n.a.", "none", "null", "nil", "<na>", "nat", "?", "-", "#n/a", "#na", "#name?", "#ref!",
     "#div/0!", "#value!", "#num!", "#null!", "#error!", "#spill!", "#calc!"}
)  # fmt: skip
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_WHOLE = re.compile(r"([+-]?)0*(\d+)(?:\.0*)?")
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")  # soft hyphens, zero-width characters, byte order marks
_JOINTS = re.compile(r"(?<!\d)[\s_\-]+|[\s_\-]+(?!\d)")  # between digits they count: 1-2 is not 12
_SEPARATORS = re.compile(r"[\s_\-]+")
_LOOKALIKES = str.maketrans(  # after casefold: dashes, quotes, Cyrillic and Greek letters
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2018\u2019\u201b\u02bc\u201c\u201d"
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u03bf\u03bd\u03c1",
    7 * "-" + 4 * "'" + 2 * '"' + "abekmhopctyxijsovp",
)
_JOINING = re.compile(r"\s*[|;,/+&]\s*")  # between several labels in one cell
_LEAST_LETTERS = 4  # of a word in which a misspelling is looked for
_SIMILARITY = 0.8  # of two such words, as difflib measures it


def clean_name(text: str) -> str:
    """Write a name as it is meant: composed Unicode, no unseen characters, no blanks around it."""
    return _UNSEEN.sub("", unicodedata.normalize("NFC", text)).strip()


def is_no_name(text: str) -> bool:
    """Tell whether a cell stands for a missing value: empty, ``nan``, ``NA``, or an error of a spreadsheet."""
    return clean_name(text).casefold() in _WITHOUT_VALUE


def is_number(text: str) -> bool:
    """Tell whether a name is a number."""
    return _NUMBER.fullmatch(text) is not None


def same_number(text: str) -> str:
    """Write whole numbers alike: ``1.0`` and ``01`` become ``1``; all else stays."""
    whole = _WHOLE.fullmatch(text)
    return whole[1].removeprefix("+") + whole[2] if whole else text


def written_name(text: str) -> str:
    """Write the name of a class in a file as it is meant."""
    return same_number(clean_name(text))


def label_name(text: str, classes: Collection[str] = ()) -> str:
    """Read the name of a class from a cell; empty where the cell is no name.

    Args:
        text: The cell.
        classes: Names that the settings state; one of them counts as it stands, whatever it looks like.
    """
    found = next((name for name in (text, clean_name(text)) if name in classes), None)
    if found is not None:
        return found
    return "" if is_no_name(text) else written_name(text)


def are_variants(one: str, other: str) -> bool:
    """Tell whether names differ in case, blanks, hyphens and underscores alone; numbers by their value."""
    return variant_key(one) == variant_key(other)


def are_near(one: str, other: str) -> bool:
    """Tell whether names are variants, or word for word plurals or misspellings of each other."""
    words, others = (_SEPARATORS.split(folded(name).strip()) for name in (one, other))
    if are_variants(one, other):
        return True
    return len(words) == len(others) and all(map(_is_near_word, words, others))


def folded(name: str) -> str:
    """Write a name for comparison without case, forms of Unicode, and letters that look alike."""
    return unicodedata.normalize("NFKC", clean_name(name)).casefold().translate(_LOOKALIKES)


def near_name(name: str, known: Iterable[str]) -> str:
    """Word a question after the name that was meant; empty where none is near."""
    names = list(known)
    by_folded = {folded(each): each for each in names}
    near = difflib.get_close_matches(folded(name), by_folded, n=1)
    return f"Did you mean '{by_folded[near[0]]}'?" if near else f"There are: '{', '.join(names[:20])}'."


def variant_key(name: str) -> str:
    """Return what all variants of a name share."""
    written = written_name(name)
    return written if is_number(written) else _JOINTS.sub("", folded(written))


def find_variants(names: Iterable[str]) -> list[tuple[str, str]]:
    """Find names of one list that are most likely one class: each with the earlier one that it is a variant of."""
    first: dict[str, str] = {}
    found = [(first.setdefault(variant_key(name), name), name) for name in dict.fromkeys(names)]
    return [(before, name) for before, name in found if before != name]


def find_joined(names: Iterable[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Find names that are several others in one cell, as of images with several labels: each with those others."""
    known = {variant_key(name): name for name in names}
    found = []
    for name in known.values():
        parts = [known.get(variant_key(part)) for part in _JOINING.split(name)]
        if len(parts) > 1 and None not in parts:
            found.append((name, tuple(part for part in parts if part)))
    return found


def variant_problems(names: Iterable[str], where: str) -> list[str]:
    """Word ``find_variants`` and ``find_joined``, a sentence each; ``where`` says whose names they are."""
    names = list(names)
    return [
        *(
            f"{where} name '{before}' and '{name}'. If they are one class, give it one name; if two, list both in "
            "data.classes."
            for before, name in find_variants(names)
        ),
        *(f"{where} name '{name}', {joined_words(parts)}" for name, parts in find_joined(names)),
    ]


def joined_words(parts: Sequence[str]) -> str:
    """Say what a name is that joins others: the rest of a sentence."""
    told = " and ".join(f"'{part}'" for part in parts)
    return f"which is {told} in one: several labels of one item? If it is a class, list all in data.classes."


def missing_value_problems(counts: Mapping[str, int], classes: Collection[str], what: str) -> list[str]:
    """List names that stand for a missing value, a sentence each; ``what`` bears them, such as ``objects``."""
    return [
        f"'{count}' {what} bear the name '{name}', which stands for a missing value. Give them a name, or list "
        f"'{name}' in data.classes if it is one."
        for name, count in counts.items()
        if count and name not in classes and is_no_name(name)
    ]


def _is_near_word(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    if one == other or long in {f"{short}s", f"{short}es", f"{short.removesuffix('y')}ies"}:
        return True
    digits = [re.sub(r"\D", "", word) for word in (one, other)]
    if digits[0] != digits[1] or len(short) < _LEAST_LETTERS:
        return False
    return difflib.SequenceMatcher(None, short, long).ratio() >= _SIMILARITY
