"""Subjects of frames: named in a list, split at random and recorded, folds of an ensemble."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.ultrasound.data.frames import refuse
from vision_core.csv_tables import read_csv
from vision_core.errors import ConfigError, DataError
from vision_core.files import atomic_path, parse_json
from vision_core.randomness import key

SUBJECTS = "subjects.csv"
_NEARLY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Subjects of each list, every subject in one.

    Attributes:
        seed: Of the shuffle.
        lists: Subjects by list: ``train``, ``val``, ``test``.
        keys_sha256: Hash of the names of all frames that were split.
    """

    seed: int
    lists: Mapping[str, tuple[str, ...]]
    keys_sha256: str

    def write(self, path: Path) -> None:
        """Write them as JSON."""
        content = {"seed": self.seed, "subjects": dict(self.lists), "keys_sha256": self.keys_sha256}
        with atomic_path(path) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def split_subjects(subjects: Iterable[str], shares: Mapping[str, float], seed: int, keys: Iterable[str]) -> Splits:
    """Split subjects at random, with counts by largest remainder.

    Args:
        subjects: Names, in any order; each counts once.
        shares: Share of each list; they sum to 1, and a list may be empty.
        seed: Of the shuffle.
        keys: Names of all frames, for the record.

    Raises:
        ConfigError: A share is negative, or they do not sum to 1.
    """
    total = sum(shares.values())
    if not (min(shares.values()) >= 0 and abs(total - 1) <= _NEARLY):
        listed = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise ConfigError(f"The shares '{listed}' sum to {total:g}. Give shares of 0 or more that sum to 1.")
    ordered = sorted(set(subjects))
    shuffled = [ordered[place] for place in np.random.default_rng(key("subjects", seed)).permutation(len(ordered))]
    lists, start = {}, 0
    for name, count in _counts(len(ordered), shares).items():
        lists[name] = tuple(sorted(shuffled[start : start + count]))
        start += count
    return Splits(seed=seed, lists=lists, keys_sha256=hash_keys(keys))


def read_splits(path: Path, subjects: Iterable[str]) -> Splits:
    """Read recorded lists, and check them against the subjects of the data.

    Raises:
        DataError: The file is damaged, a subject is in two lists or twice in one, one is not in the data, or one of the
            data is in no list.
    """
    try:
        content: Any = parse_json(path.read_text(encoding="utf-8"))
        lists = {str(name): tuple(map(str, own)) for name, own in content["subjects"].items()}
        splits = Splits(seed=int(content["seed"]), lists=lists, keys_sha256=str(content["keys_sha256"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' cannot be read as recorded lists ({error!r}). Remove it to split anew.") from error
    refuse_shared(splits.lists, str(path))
    listed, known = {each for own in lists.values() for each in own}, set(subjects)
    problems = [f"'{path}': subject '{each}' is not in the data. Remove it." for each in sorted(listed - known)]
    problems += [f"'{path}': subject '{each}' of the data is in no list. Add it." for each in sorted(known - listed)]
    refuse(str(path), problems)
    return splits


def refuse_shared(lists: Mapping[str, Sequence[str]], source: str) -> None:
    """Refuse a subject that is in two lists, or twice in one.

    Raises:
        DataError: There is one; frames of a subject are alike, and its score would be too good.
    """
    problems = [
        f"'{source}': subject '{each}' is in '{one}' and in '{other}'. Put all its frames into one list."
        for (one, first), (other, second) in combinations(lists.items(), 2)
        for each in sorted(set(first) & set(second))
    ]
    problems += [
        f"'{source}': subject '{each}' is in '{name}' {own.count(each)} times. List it once."
        for name, own in lists.items()
        for each in sorted(set(own))
        if own.count(each) > 1
    ]
    refuse(source, problems)


def folds(subjects: Iterable[str], count: int, seed: int) -> list[tuple[str, ...]]:
    """Divide subjects at random into parts of equal size; what is left over goes to the first.

    Raises:
        ConfigError: There are fewer subjects than parts, or fewer than two parts.
    """
    ordered = sorted(set(subjects))
    if not 2 <= count <= len(ordered):
        raise ConfigError(f"'{count}' folds of {len(ordered)} subjects. Give from 2 folds to one a subject.")
    shuffled = [ordered[place] for place in np.random.default_rng(key("folds", seed)).permutation(len(ordered))]
    size = len(ordered) // count
    first = len(ordered) - size * (count - 1)
    edges = [0, *range(first, len(ordered) + 1, size)]
    return [tuple(sorted(shuffled[start:end])) for start, end in pairwise(edges)]


def read_subjects(path: Path, numbers: Sequence[int]) -> dict[tuple[int, ...], str]:
    """Read the subjects of numbered frames from a CSV ``index,subject``; none without the file.

    Raises:
        DataError: A column is missing, an index is no number of a frame or listed twice, or a frame has no subject.
    """
    if not path.exists():
        return {}
    rows = named_rows(path, ("index", "subject"))
    found: dict[tuple[int, ...], str] = {}
    problems, known = [], set(numbers)
    for row, (index, subject) in rows:
        if not index.isascii() or not index.isdigit() or int(index) not in known:
            problems.append(
                f"'{path}' row {row}: index '{index}' is the number of no frame. Correct or remove the row."
            )
        elif (int(index),) in found:
            problems.append(f"'{path}' row {row}: index '{index}' is listed twice. Keep one row a frame.")
        elif not subject:
            problems.append(f"'{path}' row {row}: index '{index}' has no subject. Name one.")
        else:
            found[(int(index),)] = subject
    if not problems:
        problems = [
            f"'{path}' names no subject for frame '{each}'. Add it." for each in numbers if (each,) not in found
        ]
    refuse(str(path), problems)
    return found


def subjects_of_files(root: Path, column: str, files: Sequence[Path]) -> dict[Path, str]:
    """Read the subjects of the files of a folder from its CSV of ``column`` and ``subject``; none without it.

    Raises:
        DataError: A column is missing, a row is of no file or of one that had a row before, or a file has no subject.
    """
    path = root / SUBJECTS
    if not path.exists():
        return {}
    by_name = {each.name: each for each in files}
    found: dict[Path, str] = {}
    problems = []
    for row, (name, subject) in named_rows(path, (column, "subject")):
        if name not in by_name:
            problems.append(f"'{path}' row {row}: there is no {column} '{name}'. Correct or remove the row.")
        elif by_name[name] in found:
            problems.append(f"'{path}' row {row}: {column} '{name}' is listed twice. Keep one of them.")
        elif not subject:
            problems.append(f"'{path}' row {row}: {column} '{name}' has no subject. Name one.")
        else:
            found[by_name[name]] = subject
    if not problems:
        problems = [f"'{path}' names no subject for '{each.name}'. Add it." for each in files if each not in found]
    refuse(str(path), problems)
    return found


def named_rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """Read the cells of some columns, with the number of each row.

    Raises:
        DataError: The file is no CSV, or lacks a column.
    """
    numbered = read_csv(path, lambda name: name.strip().lower() in columns).numbered
    header = [cell.lower() for cell in next(numbered, (1, []))[1]]
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(
            f"'{path}' has no column '{missing[0]}' (it has '{', '.join(header)}'). Name it in the first row."
        )
    places = [header.index(name) for name in columns]
    return [(row, [cells[place] if place < len(cells) else "" for place in places]) for row, cells in numbered]


def hash_keys(keys: Iterable[str]) -> str:
    """Hash the names of frames, in their order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def _counts(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Round ``total`` times the shares so that the sum stays: the largest remainders are rounded up."""
    wanted = {name: share * total for name, share in shares.items()}
    counts = {name: math.floor(each + _NEARLY) for name, each in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: counts[name] - wanted[name])  # stable: the first of equals
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
