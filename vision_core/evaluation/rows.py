"""Rows of evaluation results, as a text table and as ``evaluation.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vision_core.files import to_json, write_atomic
from vision_core.results import RESEARCH_NOTICE

NUMBERS = "(number)"  # at the end of a title of details: its values are no fractions


@dataclass(frozen=True, kw_only=True)
class Row:
    """Scores of one model on one labelled list.

    Attributes:
        model: ``source`` or ``adapted``, or the bundle's name.
        split: Name of the list.
        counts: Numbers by plural noun; the last is the unit that is scored: boxes, slides.
        metrics: Values by name; None where undefined.
        intervals: 95 % confidence intervals of metrics, where estimated.
        per_class: Values by ``class.metric``.
        details: Tables of further values, by title and name: fractions, or numbers where the title says so.
        notes: What its gate found in the list, and what else is to be said beside the scores.
    """

    model: str
    split: str
    counts: Mapping[str, int]
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    per_class: Mapping[str, float | None] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write evaluation rows as JSON."""
    write_atomic(path, to_json([asdict(row) for row in rows]))


def table(rows: Sequence[Row]) -> str:
    """Format evaluation rows as text columns, metrics in percent."""
    lines = [["model", "split", *rows[0].counts, *rows[0].metrics]] if rows else []
    for row in rows:
        cells = [_cell(row, name) for name in row.metrics]
        lines.append([row.model, row.split, *map(str, row.counts.values()), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join([*("  ".join(cells).rstrip() for cells in padded), RESEARCH_NOTICE])


def details_table(rows: Sequence[Row]) -> str:
    """Format the details of rows, model beside model; empty where there are none."""
    blocks = []
    for title in dict.fromkeys(title for row in rows for title in row.details):
        with_it = [row for row in rows if title in row.details]
        names = list(dict.fromkeys(name for row in with_it for name in row.details[title]))
        lines = [["", *names]]
        lines += [[row.model, *(detail_text(title, row.details[title].get(name)) for name in names)] for row in with_it]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
        split = with_it[0].split
        blocks.append("\n".join([f"{title}, {split}", *(line.rstrip() for line in padded)]))
    return "\n\n".join(blocks)


def detail_text(title: str, value: float | None) -> str:
    """Write a value of a row's details: fractions in percent, numbers as they are."""
    if value is None:
        return "n/a"
    return f"{value:.0f}" if title.endswith(NUMBERS) else f"{100 * value:.1f}"


def _cell(row: Row, name: str) -> str:
    value = row.metrics[name]
    if value is None:
        return "n/a"
    low_high = row.intervals.get(name)
    shown = f"{100 * value:.1f}"
    return f"{shown} [{100 * low_high[0]:.1f}, {100 * low_high[1]:.1f}]" if low_high else shown
