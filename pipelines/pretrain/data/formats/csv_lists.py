"""CSV lists of labelled images: ``filename,label[,split][,patient][,modality]``."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.pretrain.data.formats.listing import Presence
from pipelines.pretrain.data.index import Entry, Reading, examples
from vision_core.errors import DataError

PARTS = ("train", "val", "test")

_DRIVE = re.compile(r"^[A-Za-z]:")
_MAX_STRIPPED = 12  # folders of somebody else's machine that a path may begin with

Row = Mapping[str, str]


def read_rows(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    """The rows of a CSV, by column name in lower case.

    Raises:
        DataError: It is not there, no text, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            rows = csv.DictReader(file, delimiter=next((mark for mark in ",;\t" if mark in head), ","))
            columns = {name: (name or "").strip().lower() for name in rows.fieldnames or ()}
            lacking = [name for name in needed if name not in columns.values()]
            if lacking:
                there = ", ".join(columns.values())
                raise DataError(f"'{path}' lacks the column '{', '.join(lacking)}'; it has '{there}'. Name it so.")
            for row in rows:
                yield {
                    columns.get(name, ""): (value or "") for name, value in row.items() if isinstance(value, str | None)
                }
    except FileNotFoundError as error:
        raise DataError(f"'{path}' does not exist. Correct data.labels.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path}' is not a CSV in UTF-8: {error}. Save it as one.") from error


def spelled(text: str) -> str:
    """A path with slashes, without drive and without leading ``./``, as it may come from Windows."""
    path = _DRIVE.sub("", text.strip().strip('"').replace("\\", "/"))
    while path.startswith("./"):
        path = path[2:]
    return re.sub("/{2,}", "/", path)


def read_table(root: Path, split: str, labels: str, reading: Reading) -> tuple[list[Entry], list[str]]:
    """The entries of one list whose files are there, and the paths that are not.

    Paths with slashes of any kind, and absolute ones, of this machine or another, are looked for below the root.

    Raises:
        DataError: The CSV is not there or lacks a column, or nothing in it belongs to the list.
    """
    path = table_path(root, split, labels)
    finder = _Finder(root, reading)
    _note_undivided(path, split, reading)
    found: dict[str, Entry] = {}
    missing: list[str] = []
    rows = []
    for row in read_rows(path, ("filename", "label")):
        if _is_of(row, split):
            rows.append(row)
        elif row["split"].strip() not in PARTS:
            reading.note(f"rows of lists other than {', '.join(PARTS)}", row["split"].strip() or "no list")
    if not rows:
        raise DataError(f"'{path}' lists no image of '{split}'. Correct data.split, or its column 'split'.")
    for row in rows:
        name = finder.find(row["filename"])
        if name is None:
            missing.append(spelled(row["filename"]))
            continue
        add_once(
            found, Entry(name, row["label"].strip(), row.get("modality", "").strip(), row.get("patient", "")), reading
        )
    return list(found.values()), missing


def labels_of_parts(root: Path, split: str, labels: str, parts: Sequence[str]) -> dict[str, set[str]]:
    """The labels of every list that is there, by its name."""
    found: dict[str, set[str]] = {}
    for part in dict.fromkeys((split, *parts)):
        path = _table_path(root, part, labels)
        if path is not None:
            names = {row["label"].strip() for row in read_rows(path, ("filename", "label")) if _is_of(row, part)}
            found.update({part: names - {""}} if names else {})
    return found


def table_path(root: Path, split: str, labels: str) -> Path:
    """The CSV of a list.

    Raises:
        DataError: There is none.
    """
    path = _table_path(root, split, labels)
    if path is None:
        wanted = " or ".join(f"'{each}'" for each in _candidates(root, split, labels))
        there = sorted(each.name for each in root.glob("*.csv")) if root.is_dir() else []
        raise DataError(f"{wanted} does not exist; there is '{', '.join(there) or 'no CSV'}'. Correct data.labels.")
    return path


def _table_path(root: Path, split: str, labels: str) -> Path | None:
    return next((path for path in _candidates(root, split, labels) if path.is_file()), None)


def _candidates(root: Path, split: str, labels: str) -> tuple[Path, ...]:
    return (root / labels.replace("{split}", split),) if labels else (root / f"{split}.csv", root / "labels.csv")


def _note_undivided(path: Path, split: str, reading: Reading) -> None:
    """One file for every list, without a column that divides it: training and scoring would share all images."""
    first = next(read_rows(path, ("filename", "label")), {})
    if "split" not in first and split not in path.stem:
        reading.remarks.append(f"'{path.name}' has no column 'split': every list read from it is all of it")


def _is_of(row: Row, split: str) -> bool:
    return "split" not in row or row["split"].strip() == split


def add_once(found: dict[str, Entry], entry: Entry, reading: Reading) -> None:
    """Add an entry by its name; one that is there already is noted, and a problem with another label or none."""
    before = found.setdefault(entry.name, entry)
    if not entry.label:
        reading.problems.append(f"'{entry.name}' has no label. Give it one, or remove its row.")
    elif before.label != entry.label:
        reading.problems.append(
            f"'{entry.name}' is listed as '{before.label}' and as '{entry.label}'. Correct the list."
        )
    elif before is not entry:
        reading.note("files listed more than once, used once", entry.name)


class _Finder:
    """Finds below a root what a list names from anywhere."""

    def __init__(self, root: Path, reading: Reading) -> None:
        self._presence = Presence(root, reading)
        self._reading = reading
        self._root = spelled(str(root.absolute())) + "/"
        self._stripped = 0  # leading folders that were not of this root, in the last path that was found

    def find(self, text: str) -> str | None:
        """The path relative to the root; None where no file is."""
        path = spelled(text).removeprefix(self._root).lstrip("/")
        parts = path.split("/")
        if ".." in parts:
            self._reading.note("paths with '..', left out", path)
            return None
        for stripped in dict.fromkeys((self._stripped, *range(min(len(parts), _MAX_STRIPPED)))):
            name = "/".join(parts[stripped:])
            if name and self._presence.has(name):
                self._stripped = stripped
                return name
        return None


def note_missing(missing: list[str], total: int, reading: Reading, *, skip: bool) -> None:
    """Listed files that are not there: counted, and a problem unless they are to be skipped."""
    if missing and skip:
        reading.facts["listed files that are not there, left out"] = missing
    elif missing:
        reading.problems.append(
            f"'{len(missing)}' of {total} listed files are not there: {examples(missing)}. "
            "Correct data.root, or set data.on_missing to 'skip'."
        )
