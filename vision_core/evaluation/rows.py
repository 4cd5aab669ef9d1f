"""Rows of evaluation results, as a text table and as ``evaluation.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vision_core.files import to_json, write_atomic
from vision_core.results import RESEARCH_NOTICE


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
        notes: What its gate found in the list, and what else is to be said beside the scores.
    """

    model: str
    split: str
    counts: Mapping[str, int]
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    per_class: Mapping[str, float | None] = field(default_factory=dict)
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


def _cell(row: Row, name: str) -> str:
    value = row.metrics[name]
    if value is None:
        return "n/a"
    low_high = row.intervals.get(name)
    shown = f"{100 * value:.1f}"
    return f"{shown} [{100 * low_high[0]:.1f}, {100 * low_high[1]:.1f}]" if low_high else shown
