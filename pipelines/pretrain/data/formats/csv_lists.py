"""CSV lists of labelled images: ``filename,label[,split][,patient][,modality]``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.pretrain.data.formats.listing import Presence
from pipelines.pretrain.data.index import Entry
from vision_core.csv_tables import read_csv
from vision_core.errors import DataError, Findings, examples

PARTS = ("train", "val", "test")

_COLUMNS = frozenset({"filename", "label", "split", "patient", "modality"})
_DRIVE = re.compile(r"^[A-Za-z]:")
_MAX_STRIPPED = 12  # leading folders of a path from another machine that may be missing below the root

Row = Mapping[str, str]


def read_rows(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    """Read the rows of a CSV by column name in lower case; missing cells are empty.

    Raises:
        DataError: There is no such file, it is not text, or it lacks a column.
    """
    rows = read_csv(path, lambda cell: cell.strip().lower() in _COLUMNS).numbered
    columns = [cell.lower() for cell in next(rows, (0, []))[1]]
    if lacking := [name for name in needed if name not in columns]:
        raise DataError(f"'{path}' lacks the column '{', '.join(lacking)}'; it has '{', '.join(columns)}'. Name it so.")
    for _, cells in rows:
        yield dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))


def spelled(text: str) -> str:
    """Normalise a path, of Windows too: slashes, no drive, no leading ``./``."""
    path = _DRIVE.sub("", text.strip().strip('"').replace("\\", "/"))
    while path.startswith("./"):
        path = path[2:]
    return re.sub("/{2,}", "/", path)


def read_table(root: Path, split: str, labels: str, findings: Findings) -> tuple[list[Entry], list[str]]:
    """Read the entries of one list; returns those whose files exist, and the missing paths.

    Paths with slashes of any kind, and absolute ones, of this machine or another, are looked for below the root.

    Raises:
        DataError: There is no CSV, it lacks a column, or no row belongs to the list.
    """
    path = _table_path(root, split, labels)
    if path is None:
        wanted = " or ".join(f"'{each}'" for each in _candidates(root, split, labels))
        there = sorted(each.name for each in root.glob("*.csv")) if root.is_dir() else []
        raise DataError(f"{wanted} does not exist; there is '{', '.join(there) or 'no CSV'}'. Correct data.labels.")
    rows = []
    for row in read_rows(path, ("filename", "label")):
        if _is_of(row, split):
            rows.append(row)
        elif row["split"] not in PARTS:
            findings.note(f"rows of lists other than {', '.join(PARTS)}", row["split"] or "no list")
    if not rows:
        raise DataError(f"'{path}' lists no image of '{split}'. Correct data.split, or its column 'split'.")
    if "split" not in rows[0] and split not in path.stem:  # training and scoring would share all images
        findings.note(f"'{path.name}' has no column 'split': every list read from it is all of it")
    finder = _Finder(root, findings)
    found: dict[str, Entry] = {}
    missing: list[str] = []
    for row in rows:
        name = finder.find(row["filename"])
        if name is None:
            missing.append(spelled(row["filename"]))
        else:
            add_once(found, Entry(name, row["label"], row.get("modality", ""), row.get("patient", "")), findings)
    return list(found.values()), missing


def labels_of_parts(root: Path, split: str, labels: str, parts: Sequence[str]) -> dict[str, set[str]]:
    """Collect the labels of every list that exists, by its name."""
    found: dict[str, set[str]] = {}
    for part in dict.fromkeys((split, *parts)):
        path = _table_path(root, part, labels)
        if path is not None:
            names = {row["label"] for row in read_rows(path, ("filename", "label")) if _is_of(row, part)}
            found.update({part: names - {""}} if names else {})
    return found


def _table_path(root: Path, split: str, labels: str) -> Path | None:
    return next((path for path in _candidates(root, split, labels) if path.is_file()), None)


def _candidates(root: Path, split: str, labels: str) -> tuple[Path, ...]:
    return (root / labels.replace("{split}", split),) if labels else (root / f"{split}.csv", root / "labels.csv")


def _is_of(row: Row, split: str) -> bool:
    return row.get("split", split) == split


def add_once(found: dict[str, Entry], entry: Entry, findings: Findings) -> None:
    """Add an entry by its name; note a repeated one, report one with another label or none."""
    before = found.setdefault(entry.name, entry)
    if not entry.label:
        findings.refuse(f"'{entry.name}' has no label. Give it one, or remove its row.")
    elif before.label != entry.label:
        findings.refuse(f"'{entry.name}' is listed as '{before.label}' and as '{entry.label}'. Correct the list.")
    elif before is not entry:
        findings.note("files listed more than once, used once", entry.name)


class _Finder:
    """Finder of files below a root by paths from another machine."""

    def __init__(self, root: Path, findings: Findings) -> None:
        self._presence = Presence(root, findings)
        self._findings = findings
        self._root = spelled(str(root.absolute())) + "/"
        self._stripped = 0  # leading folders dropped from the last path that was found

    def find(self, text: str) -> str | None:
        """Return the path relative to the root; None where there is no file."""
        path = spelled(text).removeprefix(self._root).lstrip("/")
        parts = path.split("/")
        if ".." in parts:
            self._findings.note("paths with '..', left out", path)
            return None
        for stripped in dict.fromkeys((self._stripped, *range(min(len(parts), _MAX_STRIPPED)))):
            name = "/".join(parts[stripped:])
            if name and self._presence.has(name):
                self._stripped = stripped
                return name
        return None


def note_missing(missing: list[str], total: int, findings: Findings, *, skip: bool) -> None:
    """Count listed files that do not exist: a problem, unless they are to be skipped."""
    if missing and skip:
        findings.places["listed files that are not there, left out"] = missing
    elif missing:
        findings.refuse(
            f"'{len(missing)}' of {total} listed files are not there: {examples(missing)}. "
            "Correct data.root, or set data.on_missing to 'skip'."
        )
