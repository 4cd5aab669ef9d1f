"""Report of a run, or of several runs below one folder, as one offline HTML file."""

import base64
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image, UnidentifiedImageError

from vision_core.errors import DataError, UsageError
from vision_core.evaluation.rows import Row, detail_text
from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE
from vision_core.runs.curves import layout_curve
from vision_core.runs.record import RunRecord, find_runs, flatten, read_run

_SMALL_LIST = 100
_SEED = "train.seed"
_EMBED_BYTES = 400_000
_EMBED_PX = 1600
_ROLES = {"trained": "adapted"}  # a model trained from the start stands in the column of results
_METRIC_NAMES = {
    "voc07_ap50": "AP50 (VOC 2007)",
    "area_ap50": "AP50 (area under the curve)",
    "coco_ap": "AP (COCO, 0.50 to 0.95)",
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Metric before and after training on one list, over one or several seeds.

    Attributes:
        target: Name of the run, or of the runs.
        split: Name of the labelled list.
        metric: Full name of the metric.
        counts: Numbers of scored items, as in ``Row``.
        source: Fractions of the source model, one per seed; empty when it was not scored.
        adapted: Fractions of the adapted model, one per seed.
    """

    target: str
    split: str
    metric: str
    counts: Mapping[str, int]
    source: tuple[float, ...]
    adapted: tuple[float, ...]

    @property
    def is_illustration(self) -> bool:
        """Whether the list is too small for its score to carry a claim."""
        return list(self.counts.values())[-1] < _SMALL_LIST

    @property
    def changes(self) -> tuple[float, ...]:
        """Adapted minus source, seed by seed; empty unless both were scored."""
        if len(self.source) != len(self.adapted):
            return ()
        return tuple(after - before for before, after in zip(self.source, self.adapted, strict=True))

    @property
    def amount(self) -> str:
        """Numbers of scored items, in words."""
        return ", ".join(f"{number:,} {name}" for name, number in self.counts.items())

    def sentence(self) -> str:
        """Describe the comparison in a sentence."""
        where = f"On {self.split} ({self.amount}) {self.metric}"
        caution = " Too small for a claim: an illustration." if self.is_illustration else ""
        if not self.changes:
            return f"{where} {self._alone()}{caution}"
        seeds = f", means of {len(self.changes)} seeds" if len(self.changes) > 1 else ""
        verb = _verb(statistics.fmean(self.changes))
        source, adapted = (100 * statistics.fmean(values) for values in (self.source, self.adapted))
        return f"{where} {verb} from {source:.1f} to {adapted:.1f}{seeds}.{caution}"

    def _alone(self) -> str:
        if self.source or not self.adapted:
            return "cannot be compared: not both models have a score."
        seeds = f", mean of {len(self.adapted)} seeds" if len(self.adapted) > 1 else ""
        return f"is {100 * statistics.fmean(self.adapted):.1f}{seeds}."


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Image embedded in the page."""

    uri: str
    caption: str


def write_report(folder: Path, names: Mapping[str, str]) -> Path:
    """Write ``report.html`` into a run folder, or the parent of several.

    Metrics are fractions and shown times 100. ``names`` are those of the task's curves for people.

    Raises:
        DataError: There is no run in ``folder``.
        UsageError: A file of that name is no report.
    """
    refuse_foreign_report(folder)
    paths = find_runs(folder)
    if not paths:
        raise DataError(f"'{folder}' holds no run: expected run.json, metrics.jsonl or config.yaml in it or one below.")
    report = folder / "report.html"
    write_atomic(report, _render(folder.resolve().name, [read_run(path) for path in paths], names))
    return report


def refuse_foreign_report(folder: Path) -> None:
    """Refuse to replace a ``report.html`` that is not ours.

    Raises:
        UsageError: A file of that name is no report.
    """
    report = folder / "report.html"
    if report.exists() and not _is_report(report):
        raise UsageError(f"'{report}' is no report of this package, so it is not replaced. Move or rename it.")


def _is_report(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return ": report</title>" in text and RESEARCH_NOTICE in text


def compare(runs: Sequence[RunRecord]) -> list[Comparison]:
    """Compare before and after for every list and metric, over seeds."""
    return [
        comparison
        for seeds in _by_experiment(runs)
        for split in _unique(row.split for run in seeds for row in run.evaluations)
        for comparison in _compare_split(seeds, split)
    ]


def embed(path: Path, caption: str) -> Picture | None:
    """Encode an image file as a data URI; None when it cannot be read.

    Small files are embedded unchanged, large ones as JPEG.
    """
    try:
        data, kind = path.read_bytes(), "png"
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            if len(data) > _EMBED_BYTES:
                data, kind = _as_jpeg(image), "jpeg"
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError):
        return None
    return Picture(uri=f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}", caption=caption)


def count(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 box``, ``2 boxes``."""
    plural = "es" if noun.endswith("x") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def in_points(values: Sequence[float], *, sign: bool = False) -> str:
    """Write mean and sample standard deviation of fractions, times 100."""
    if not values:
        return "n/a"
    mean = f"{100 * statistics.fmean(values):{'+' if sign else ''}.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _render(name: str, runs: Sequence[RunRecord], names: Mapping[str, str]) -> str:
    comparisons = compare(runs)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vision_core.runs"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(in_points=in_points, count=count)
    return environment.get_template("report.html.j2").render(
        name=name,
        notice=RESEARCH_NOTICE,
        comparisons=comparisons,
        headlines=_headlines(comparisons),
        runs=[_section(run, names) for run in runs],
        small=_SMALL_LIST,
    )


def _section(run: RunRecord, names: Mapping[str, str]) -> dict[str, Any]:
    embedded = [(path, embed(path, caption)) for path, caption in run.pictures]
    broken = [f"Picture {path.name} cannot be read." for path, picture in embedded if picture is None]
    return {
        "name": run.name,
        "status": str(run.facts.get("status", "unknown")),
        "summary": run.summary,
        "notes": _notes(run),
        "gaps": [*run.gaps, *broken],
        "curves": [layout_curve(name, values, names) for name, values in run.curves.items()],
        "pictures": [picture for _, picture in embedded if picture is not None],
        "classes": _per_class(run.evaluations),
        "details": _details(run.evaluations),
        "settings": run.settings,
        "facts": {key: value for key, value in flatten(run.facts).items() if not key.startswith(("notes", "settings"))},
    }


def _headlines(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Select the first metric of every list, as evaluation orders them."""
    first: dict[tuple[str, str], Comparison] = {}
    for comparison in comparisons:
        first.setdefault((comparison.target, comparison.split), comparison)
    return list(first.values())


def _notes(run: RunRecord) -> list[str]:
    """List the notes of a run and those of the lists that it was scored on, each once; none that its summary says."""
    notes = run.facts.get("notes") or []
    told = [str(note) for note in notes] if isinstance(notes, list) else [str(notes)]
    summary = run.summary
    said = tuple(filter(None, (summary.headline, *summary.lines))) if summary else ()
    told = [note for note in told if not note.startswith(said)]
    return list(dict.fromkeys([*told, *(f"{row.split}: {note}" for row in run.evaluations for note in row.notes)]))


def _per_class(rows: Iterable[Row]) -> list[tuple[str, str, list[float], list[float]]]:
    """List split, class, and the value of each model, if any."""
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        for name, value in row.per_class.items():
            cell = cells.setdefault((row.split, name), {})
            if value is not None:
                cell[row.model] = value
    return [(split, name, _listed(cell, "source"), _listed(cell, "adapted")) for (split, name), cell in cells.items()]


def _details(rows: Sequence[Row]) -> list[tuple[str, list[str], list[tuple[str, list[str]]]]]:
    """List title, names, and the texts of each model, of the tables beside the scores."""
    tables = []
    for split, title in dict.fromkeys((row.split, title) for row in rows for title in row.details):
        with_it = [row for row in rows if row.split == split and title in row.details]
        names = _unique(name for row in with_it for name in row.details[title])
        cells = [(row.model, [detail_text(title, row.details[title].get(name)) for name in names]) for row in with_it]
        tables.append((f"{title}, {split}", names, cells))
    return tables


def _listed(cell: Mapping[str, float], model: str) -> list[float]:
    return [cell[model]] if model in cell else []


def _by_experiment(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        rest = sorted((key, repr(value)) for key, value in run.settings.items() if key != _SEED)
        groups.setdefault(repr(rest) if _SEED in run.settings else run.name, []).append(run)
    return list(groups.values())


def _compare_split(seeds: Sequence[RunRecord], split: str) -> list[Comparison]:
    rows = [row for run in seeds for row in run.evaluations if row.split == split]
    comparisons = []
    for metric in _unique(name for row in rows for name in row.metrics):
        source, adapted = _paired([_scores(run, split, metric) for run in seeds])
        comparisons.append(
            Comparison(
                target=_target(seeds),
                split=split,
                metric=_METRIC_NAMES.get(metric, metric),
                counts=rows[0].counts,
                source=source,
                adapted=adapted,
            )
        )
    return comparisons


def _target(seeds: Sequence[RunRecord]) -> str:
    if len(seeds) == 1:
        return seeds[0].name
    return f"{seeds[0].name} to {seeds[-1].name} ({len(seeds)} seeds)"


def _scores(run: RunRecord, split: str, metric: str) -> dict[str, float]:
    found = {_ROLES.get(row.model, row.model): row.metrics.get(metric) for row in run.evaluations if row.split == split}
    return {model: value for model, value in found.items() if value is not None}


def _paired(seeds: Sequence[Mapping[str, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Pair the scores before and after of each seed.

    Seeds without both are left out, unless no seed has both.
    """
    whole = [scores for scores in seeds if {"source", "adapted"} <= scores.keys()] or seeds
    return (
        tuple(scores["source"] for scores in whole if "source" in scores),
        tuple(scores["adapted"] for scores in whole if "adapted" in scores),
    )


def _verb(change: float) -> str:
    if abs(change) < 0.0005:
        return "stayed"
    return "rose" if change > 0 else "fell"


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _as_jpeg(image: Image.Image) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((_EMBED_PX, _EMBED_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
