"""CSV tables: read as spreadsheets and people save them, written so that no spreadsheet runs a cell as a formula."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_core.errors import DataError

Cell = str | int | float | None

_SEPARATORS = (",", ";", "\t", "|")
_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # what spreadsheets save as "Unicode text"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, kw_only=True)
class CsvRows:
    """The rows of a CSV as text.

    Attributes:
        separator: Between cells.
        numbered: Each row that is not blank: its number as a spreadsheet counts, from 1, and its cells without blanks
            around them. Can be read once.
    """

    separator: str
    numbered: Iterator[tuple[int, list[str]]]


def read_csv(path: Path, is_column: Callable[[str], bool]) -> CsvRows:
    """Read a CSV separated by comma, semicolon, tab or bar, in UTF-8 or UTF-16.

    The separator is the one that a first line ``sep=;`` names, or else the one that makes most known columns of it.

    Args:
        path: The file.
        is_column: Whether a cell of the first row names a known column.

    Raises:
        DataError: There is no such file, or it is not text; while rows are read: quotes do not match.
    """
    content = _read_bytes(path)
    encoding = _ENCODINGS.get(content[:2], "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' is not text in UTF-8: byte '{error.start}' of {len(content)} does not fit. "
            "Save it as 'CSV UTF-8', not as a workbook."
        ) from error
    if "\0" in text:
        raise DataError(f"'{path}' is not a CSV: it has null characters. Save it as 'CSV UTF-8'.")
    lines = io.TextIOWrapper(io.BytesIO(content), encoding, newline="")  # half the memory of a StringIO
    first = next((line.strip() for line in lines if line.strip()), "")
    lines.seek(0)
    is_declared = first.lower().startswith("sep=")  # how Excel marks the separator
    separator = first[4:5] or "\t" if is_declared else _separator(first, is_column)
    rows = _rows(path, lines, separator)
    if is_declared:
        next(rows)
    return CsvRows(separator=separator, numbered=rows)


def to_csv(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Write a table as text, its cells made safe."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([[safe_cell(cell) for cell in row] for row in (header, *rows)])
    return table.getvalue()


def safe_cell(cell: Cell) -> Cell:
    """Put an apostrophe before text that a spreadsheet would run as a formula; numbers stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def unquoted(text: str) -> str:
    """Remove the apostrophe that ``safe_cell`` has put before a formula."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA_STARTS) else text


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"'{path}' does not exist. Set data.labels to a CSV file.") from error
    except IsADirectoryError as error:
        raise DataError(f"'{path}' is a folder. Set data.labels to a CSV file.") from error


def _separator(line: str, is_column: Callable[[str], bool]) -> str:
    """Choose the separator that makes most known columns of a line, or else most cells."""

    def rank(separator: str) -> tuple[int, int]:
        cells = next(csv.reader([line], delimiter=separator), [])
        return sum(map(is_column, cells)), len(cells)

    return max(_SEPARATORS, key=rank)


def _rows(path: Path, lines: Iterator[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    try:
        for number, cells in enumerate(csv.reader(lines, delimiter=separator, strict=True), 1):
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield number, stripped
    except csv.Error as error:
        raise DataError(f"'{path}' is not a CSV: {error}. Save it as 'CSV UTF-8' again.") from error
