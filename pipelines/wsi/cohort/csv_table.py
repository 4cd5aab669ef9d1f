"""A CSV about slides: its columns under our names, its rows with their numbers, its problems as sentences."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_core.csv_tables import read_csv, unquoted
from vision_core.errors import DataError
from vision_core.evaluation.class_names import clean_name, is_no_name

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "slide": ("slide", "slide_id", "id", "wsi"),
    "label": ("label",),
    "patient": ("patient", "patient_id", "case", "case_id", "subject", "subject_id"),
    "split": ("split",),
    "fold": ("fold",),
    "mpp": ("mpp",),
}
_MAX_PROBLEMS = 50


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
        number: As a spreadsheet counts, from 1, the header included.
        cells: Text by column, under our names.
    """

    number: int
    cells: Mapping[str, str]

    def value(self, column: str) -> str:
        """Return the text of a cell, empty where it means no value: ``NaN``, ``NA``, ``#N/A``."""
        text = clean_name(self.cells.get(column, ""))
        return "" if is_no_name(text) else text


@dataclass(frozen=True, kw_only=True)
class SlideTable:
    """The rows of a CSV and its problems.

    Attributes:
        path: The file.
        columns: Our names of its columns.
        rows: All rows that are not blank and complete.
        problems: Sentences; readers of the rows add to them and refuse all at once.
        separator: Between cells.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    separator: str


def read_table(path: Path, *, others: bool = False) -> SlideTable:
    """Read a CSV of slides; one without header has the columns slide and label.

    Args:
        path: The file.
        others: Pass over unknown columns, as tables made elsewhere have them; else they are problems.

    Raises:
        DataError: There is no such file, it is not text, or it has no row.
    """
    table = read_csv(path, lambda cell: _our_name(cell) is not None)
    numbered = list(table.numbered)
    if not numbered:
        raise DataError(f"'{path}' is empty. It needs a row 'slide,label' and one row per slide.")
    numbered = [(number, _without_blank_end(cells, numbered[0][1])) for number, cells in numbered]
    names = [_our_name(cell) for cell in numbered[0][1]]
    problems: list[str] = []
    if not any(names) and len(names) == 2:
        names, body = ["slide", "label"], numbered
    else:
        problems, body = _header_problems(numbered[0], names, others=others), numbered[1:]
    rows = []
    for number, cells in body:
        if len(cells) != len(names):
            problems.append(f"row {number} has '{len(cells)}' cells, the first row '{len(names)}'. Complete it.")
            continue
        named = zip(names, cells, strict=True)
        rows.append(Row(number=number, cells={name: unquoted(cell) for name, cell in named if name}))
    if not body:
        problems.append("has a header and no row. Add one row per slide.")
    return SlideTable(
        path=path,
        columns=tuple(name for name in names if name),
        rows=tuple(rows),
        problems=tuple(problems),
        separator=table.separator,
    )


def refuse(path: Path, problems: Sequence[str]) -> None:
    """Raise all problems of a table at once.

    Raises:
        DataError: There is a problem.
    """
    told = [f"'{path}': {problem}" for problem in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        told.append(f"'{path}' has '{len(problems)}' problems in all.")
    if told:
        raise DataError(told)


def _without_blank_end(cells: list[str], header: Sequence[str]) -> list[str]:
    """Drop blank cells behind the last named column, which spreadsheets write once a person has edited there."""
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
