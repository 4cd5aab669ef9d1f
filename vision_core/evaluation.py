"""Scores of models on labelled lists, as rows of a table and of ``evaluation.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model on one labelled list.

    Attributes:
        model: ``source`` or ``adapted``, or the bundle's name.
        split: The list.
        images: Number of images.
        boxes: Number of objects that count.
        metrics: Values by name; none where undefined.
        per_class: Values by ``class.metric``.
    """

    model: str
    split: str
    images: int
    boxes: int
    metrics: Mapping[str, float | None]
    per_class: Mapping[str, float | None] = field(default_factory=dict)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Evaluation rows as JSON."""
    write_atomic(path, json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False))


def table(rows: Sequence[Row]) -> str:
    """Evaluation rows as text columns, metrics in percent."""
    names = list(rows[0].metrics) if rows else []
    lines = [["model", "split", "images", "boxes", *names]]
    for row in rows:
        lines.append([row.model, row.split, str(row.images), str(row.boxes), *map(_percent, row.metrics.values())])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*told, RESEARCH_NOTICE])


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"
