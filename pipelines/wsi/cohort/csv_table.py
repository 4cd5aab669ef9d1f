"""A CSV about slides, read as text: separators, encodings and columns as people have them, rows with their numbers."""

import csv
import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_core.errors import DataError

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "slide": ("slide", "slide_id", "id", "wsi"),
    "label": ("label",),
    "patient": ("patient", "patient_id", "case", "case_id", "subject", "subject_id"),
    "split": ("split",),
    "fold": ("fold",),
    "mpp": ("mpp",),
}
WITHOUT_VALUE = frozenset({"", "nan", "na", "n/a", "none", "null", "<na>", "?"})

_SEPARATORS = (",", ";", "\t", "|")
_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # what spreadsheets save as "Unicode text"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_MAX_PROBLEMS = 50


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        number: As a spreadsheet counts, from 1, the header included.
        cells: Text by column; the columns have our names.
    """

    number: int
    cells: Mapping[str, str]

    def value(self, column: str) -> str:
        """The text of a cell, empty where it says that there is none: ``NaN``, ``NA``."""
        text = self.cells.get(column, "")
        return "" if text.casefold() in WITHOUT_VALUE else text


@dataclass(frozen=True, kw_only=True)
class SlideTable:
    """A CSV and what is wrong with it.

    Attributes:
        path: The file.
        columns: Our names of the columns that it has.
        rows: Those that are not blank.
        problems: Sentences; whoever reads on adds to them and refuses all at once.
        separator: Between cells.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    separator: str


def read_table(path: Path, *, others: bool = False) -> SlideTable:
    """Read a CSV: separated by comma, semicolon, tab or bar, with or without byte order mark.

    A table without header is taken as the columns slide and label.

    Args:
        path: The file.
        others: Pass over columns that we do not know, as tables made elsewhere have them; else they are problems.

    Raises:
        DataError: There is no such file, it is not text, or it has no row.
    """
    text = _decoded(path)
    first = next(line for line in text.splitlines() if line.strip())
    declared = first.strip().lower().startswith("sep=")  # how Excel marks the separator
    separator = first.strip()[4:5] or "\t" if declared else _separator(first)
    try:
        numbered = [
            (number, [cell.strip() for cell in cells])
            for number, cells in enumerate(
                csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), 1
            )
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise DataError(f"'{path}' is not a CSV: {error}. Save it as 'CSV UTF-8' again.") from error
    return _checked(path, numbered[declared:], separator, others=others)


def refuse(path: Path, problems: Sequence[str]) -> None:
    """Raise all problems of a table at once, if there are any.

    Raises:
        DataError: There are.
    """
    told = [f"'{path}': {problem}" for problem in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        told.append(f"'{path}' has '{len(problems)}' problems in all.")
    if told:
        raise DataError(told)


def unquoted(text: str) -> str:
    """A name without the apostrophe that keeps spreadsheets from taking it for a formula."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA_STARTS) else text


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"'{path}' does not exist. Set data.labels to the CSV of slides and labels.") from error
    except IsADirectoryError as error:
        raise DataError(f"'{path}' is a folder. Set data.labels to a CSV file.") from error
    try:
        text = content.decode(_ENCODINGS.get(content[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' is not text in UTF-8: byte '{error.start}' of {len(content)} does not fit. "
            "Save it as 'CSV UTF-8', not as a workbook."
        ) from error
    if "\0" in text:
        raise DataError(f"'{path}' is not a CSV: it has null characters. Save it as 'CSV UTF-8'.")
    if not text.strip():
        raise DataError(f"'{path}' is empty. It needs a row 'slide,label' and one row per slide.")
    return text


def _separator(line: str) -> str:
    """Which one makes known columns of the first line, or else most cells."""

    def rank(separator: str) -> tuple[int, int]:
        cells = next(csv.reader(io.StringIO(line), delimiter=separator), [])
        return sum(_our_name(cell) is not None for cell in cells), len(cells)

    return max(_SEPARATORS, key=rank)


def _checked(path: Path, numbered: Sequence[tuple[int, list[str]]], separator: str, *, others: bool) -> SlideTable:
    if not numbered:
        raise DataError(f"'{path}' has no row. It needs a row 'slide,label' and one row per slide.")
    numbered = [(number, _without_blank_end(cells, numbered[0][1])) for number, cells in numbered]
    names = [_our_name(cell) for cell in numbered[0][1]]
    problems: list[str] = []
    if not any(names) and len(names) == 2:
        names, body = ["slide", "label"], numbered
    else:
        problems = _header_problems(numbered[0], names, others=others)
        body = numbered[1:]
    rows = []
    for number, cells in body:
        if len(cells) != len(names):
            problems.append(f"row {number} has '{len(cells)}' cells, the first row '{len(names)}'. Complete it.")
            continue
        named = zip(names, cells, strict=True)
        rows.append(Row(number=number, cells={name: unquoted(cell) for name, cell in named if name}))
    if not body:
        problems.append("has a header and no row. Add one row per slide.")
    columns = tuple(name for name in names if name)
    return SlideTable(path=path, columns=columns, rows=tuple(rows), problems=tuple(problems), separator=separator)


def _without_blank_end(cells: list[str], header: Sequence[str]) -> list[str]:
    """Without the cells behind the last named column, which spreadsheets write once somebody has been there."""
    width = max((place for place, name in enumerate(header, start=1) if name), default=0)
    return cells[:width] if not any(cells[width:]) else cells


def _header_problems(header: tuple[int, list[str]], names: Sequence[str | None], *, others: bool) -> list[str]:
    number, cells = header
    problems = []
    for name in dict.fromkeys(filter(None, names)):
        same = [cell for cell, known in zip(cells, names, strict=True) if known == name]
        if len(same) > 1:
            problems.append(f"row {number}: columns '{', '.join(same)}' are all '{name}'. Keep one of them.")
    if "slide" not in names:
        problems.append(f"row {number}: no column 'slide'; there is '{', '.join(cells)}'. Name the columns.")
    unknown = [(place, cell) for place, (cell, name) in enumerate(zip(cells, names, strict=True), 1) if name is None]
    if not others:
        problems += [f"row {number}: {_unknown(place, cell)}" for place, cell in unknown]
    return problems


def _unknown(place: int, cell: str) -> str:
    return (
        f"column '{cell}' is not known{_nearest(cell)}" if cell else f"column {place} has no name. Name or remove it."
    )


def _nearest(cell: str) -> str:
    every = [name for names in COLUMNS.values() for name in names]
    near = difflib.get_close_matches(cell.lower(), every, n=1)
    known = ", ".join(COLUMNS)
    return f"; did you mean '{near[0]}'? Rename it." if near else f"; there are {known}. Remove or rename it."


def _our_name(cell: str) -> str | None:
    tidy = cell.strip().strip("\ufeff").casefold().replace(" ", "_").replace("-", "_")
    return next((ours for ours, names in COLUMNS.items() if tidy in names), None)
