"""CSV tables that a spreadsheet opens without running a cell as a formula."""

import csv
import io
from collections.abc import Sequence

Cell = str | int | float | None
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_csv(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table as text; cells of text that a spreadsheet would run as a formula get a quote in front."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([[safe_cell(cell) for cell in row] for row in (header, *rows)])
    return table.getvalue()


def safe_cell(cell: Cell) -> Cell:
    """``cell``, harmless in a spreadsheet; numbers stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell
