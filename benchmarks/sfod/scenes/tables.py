"""Tables of the study ``sfod-scenes``: methods with ten classes, and the choice among teachers. Composed scenes."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.ovd.scenes import tables as ovd_tables
from benchmarks.sfod.sources_tables import fewest_epochs, interval
from benchmarks.studies import Rows, Study, read_results, spread
from pipelines.sfod.verdict.numbers import BASELINES, NUMBERS

STUDY = Study(
    name="sfod-scenes",
    protocol_file="sfod_scenes.yaml",
    makers=(
        *(each for each in ovd_tables.STUDY.makers if each.startswith("vision_core/")),
        "pipelines/sfod/demo/shifts.py",
        "benchmarks/sfod/scenes/data.py",
    ),
)
SEARCH, LABELS = "sfod-scenes-search", "sfod-scenes-labels"
NAMES = {
    "mt": "Mean Teacher",
    "lpld": "LPLD",
    "wscol_core": "WSCoL",
    "wsco_full": "WSCo",
    "wsco_full+lpld": "WSCo and LPLD",
    "fixed_pl": "labels written once by the source model",
    "bn": "statistics of norms",
    "mt_published": "Mean Teacher, published threshold",
    "wsco_published": "WSCo, published threshold",
    "oracle": "oracle: labels of the target",
    "mt_ordinary": "Mean Teacher, from the ordinary source",
    "lpld_ordinary": "LPLD, from the ordinary source",
}
SOURCES = {"source_ordinary": "ordinary source", "source_strong": "strong source"}
_SEARCHED = ("optim.lr", "pseudo_labels.per_image")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A row of the study under a shift, with a seed of source and adaptation."""

    row: str
    shift: str
    seed: int

    @property
    def name(self) -> str:
        """Return the name of its file."""
        return f"{self.row}-{self.shift}-{self.seed}"


def cells() -> list[Cell]:
    """List all cells, seed by seed."""
    protocol = STUDY.protocol()
    rows: dict[str, dict[str, Any]] = protocol["rows"]
    return [
        Cell(row=row, shift=shift, seed=seed)
        for seed in range(max(each["seeds"] for each in rows.values()))
        for row, settings in rows.items()
        if seed < settings["seeds"]
        for shift in protocol["shifts"]
    ]


def missing(rows: Rows) -> list[str]:
    """Cells of the study without a result."""
    found = {f"{row['row']}-{row['shift']}-{row['seed']}" for row in _adapted(rows)}
    return [each.name for each in cells() if each.name not in found]


def best_epochs(kind: str) -> int:
    """What the search found for a source.

    Raises:
        LookupError: Runs of the search are missing.
    """
    return fewest_epochs(SEARCH, kind, STUDY.protocol()["source_search"]["train.epochs"])


def best_setting() -> dict[str, float]:
    """Rate and labels an image that the search found.

    Raises:
        LookupError: Runs of the search are missing.
    """
    protocol = STUDY.protocol()
    gains: dict[tuple[float, ...], list[float]] = {}
    for row in read_results(LABELS):
        point = tuple(row["settings"][name] for name in _SEARCHED)
        gains.setdefault(point, []).append(row["ap50"] - row["source_ap50"])
    points = math.prod(len(protocol["search"][name]) for name in _SEARCHED)
    if len(gains) < points or any(len(each) < len(protocol["search_shifts"]) for each in gains.values()):
        raise LookupError(f"{LABELS}: runs are missing")
    best = max(gains, key=lambda point: statistics.fmean(gains[point]))
    return dict(zip(_SEARCHED, best, strict=True))


def scores_table() -> str:
    """AP50 of the last teacher, mean and spread over seeds, by row and shift, and labels an image."""
    rows, shifts = STUDY.rows(), list(STUDY.protocol()["shifts"])
    head = ["no shift", *shifts, "labels an image, first and mean", "seeds"]
    lines = [f"| composed scenes, AP50, % | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for row, name in SOURCES.items():
        scored = [each for each in rows if each["row"] == row]
        told = [spread([each["ap50"][shift] for each in scored]) for shift in ("clean", *shifts)]
        lines.append(f"| {name} | {' | '.join(told)} | | {len(scored)} |")
    for row, name in NAMES.items():
        own = [each for each in _adapted(rows) if each["row"] == row]
        told = [spread([_last(each)["ap50"] for each in own if each["shift"] == shift]) for shift in shifts]
        labels = [
            f"{statistics.fmean(each[key] for each in own):.1f}" if own and key in own[0] else "–"
            for key in ("labels_first", "labels_mean")
        ]
        lines.append(f"| {name} | | {' | '.join(told)} | {', '.join(labels)} | {len({each['seed'] for each in own})} |")
    return "\n".join(lines)


def paired_table() -> str:
    """Differences within a seed, by shift and as the mean over shifts, with 95 % t intervals over seeds."""
    rows, shifts = STUDY.rows(), list(STUDY.protocol()["shifts"])
    pairs = [("lpld", "mt"), ("wsco_full", "mt"), ("wscol_core", "mt"), ("wsco_full+lpld", "lpld"), ("fixed_pl", "mt")]
    pairs += [("bn", ""), ("mt", ""), ("lpld", ""), ("oracle", ""), ("mt_ordinary", ""), ("lpld_ordinary", "")]
    head = [*shifts, "mean over shifts", "seeds"]
    lines = [f"| composed scenes, difference within a seed, 95 % interval | {' | '.join(head)} |"]
    lines.append("|---" * (len(head) + 1) + "|")
    for first, second in pairs:
        found = {shift: _differences(rows, first, second, shift) for shift in shifts}
        seeds = sorted(set.intersection(*(set(each) for each in found.values())))
        told = [interval([each[seed] for seed in seeds]) for each in found.values()]
        told.append(interval([statistics.fmean(each[seed] for each in found.values()) for seed in seeds]))
        called = f"{NAMES[first]} − {NAMES[second] if second else 'its source'}"
        lines.append(f"| {called} | {' | '.join(told)} | {len(seeds)} |")
    return "\n".join(lines)


def choice_table() -> str:
    """What each way to choose among source and teachers loses to the best by labels, and gains on the source."""
    rows = [each for each in _adapted(STUDY.rows()) if "without_labels" in each]
    lines = [
        "| composed scenes, chosen | loss to the best by labels | gain on the source, worst shift | gain, mean |",
        "|---|---|---|---|",
    ]
    ways: dict[str, Callable[[dict[str, Any]], int]] = {
        "without labels, by the rule": lambda row: _place(row, row["selected"]),
        "the last teacher": lambda row: len(row["candidates"]) - 1,
        "the source": lambda row: 0,
        **{_highest(name): _by_number(name) for name in (*NUMBERS, *BASELINES)},
    }
    for name, way in ways.items():
        losses = [_loss(row, way(row)) for row in rows]
        gains: dict[str, list[float]] = {}
        for row in rows:
            chosen = row["candidates"][way(row)]["ap50"] - row["candidates"][0]["ap50"]
            gains.setdefault(row["shift"], []).append(chosen)
        worst = min((statistics.fmean(each) for each in gains.values()), default=math.nan)
        every = [value for each in gains.values() for value in each]
        lines.append(f"| {name} | {interval(losses)} | {worst:+.1f} | {spread(every, '+')} |")
    return "\n".join(lines)


def verdict_table() -> str:
    """What the verdict without labels says of the last teacher, by what labels say."""
    rows = [each for each in _adapted(STUDY.rows()) if "without_labels" in each]
    kinds = ("helped", "unclear", "harmful")
    lines = [f"| composed scenes, cells that by labels | {' | '.join(kinds)} | all |", "|---|---|---|---|---|"]
    for truth in ("helped", "no difference", "harmful"):
        said = [row["without_labels"][-1]["without_labels"] for row in rows if _truth(_last(row)) == truth]
        lines.append(f"| {truth} | {' | '.join(str(said.count(kind)) for kind in kinds)} | {len(said)} |")
    return "\n".join(lines)


def _adapted(rows: Rows) -> Rows:
    return [row for row in rows if row["row"] not in SOURCES]


def _last(row: dict[str, Any]) -> dict[str, Any]:
    last: dict[str, Any] = row["candidates"][-1]
    return last


def _differences(rows: Rows, first: str, second: str, shift: str) -> dict[int, float]:
    """Differences by seed; to the source that a run started from if ``second`` is empty."""
    by_row = {(row["row"], row["seed"]): row for row in _adapted(rows) if row["shift"] == shift}
    found = {}
    for (name, seed), row in by_row.items():
        other = row["candidates"][0] if not second else None
        if second and (second, seed) in by_row:
            other = _last(by_row[second, seed])
        if name == first and other is not None:
            found[seed] = _last(row)["ap50"] - other["ap50"]
    return found


def _truth(candidate: dict[str, Any]) -> str:
    low, high = candidate["difference"]
    return "helped" if low > 0 else "harmful" if high < 0 else "no difference"


def _place(row: dict[str, Any], step: int | None) -> int:
    """Return the place of the candidate of a step; the last one where none was selected."""
    steps = [each["step"] for each in row["candidates"]]
    return len(steps) - 1 if step is None else steps.index(step)


def _highest(name: str) -> str:
    return f"the {'lowest' if name == 'entropy' else 'highest'} {name.replace('_', ' ')}"


def _by_number(name: str) -> Callable[[dict[str, Any]], int]:
    sign = -1 if name == "entropy" else 1

    def choose(row: dict[str, Any]) -> int:
        values = [each[name] for each in row["without_labels"]]
        return int(np.argmax([-math.inf if value is None else sign * value for value in values]))

    return choose


def _loss(row: dict[str, Any], chosen: int) -> float:
    """Loss to the best by labels, which is found on one half of the scenes and scored on the other, both ways."""
    halves = np.array([each["ap50_halves"] for each in row["candidates"]])  # (candidates, 2)
    best = halves.argmax(axis=0)
    return float(np.mean([halves[best[0], 1] - halves[chosen, 1], halves[best[1], 0] - halves[chosen, 0]]))


TABLES: dict[str, Callable[[], str]] = {
    "sfod-scenes": scores_table,
    "sfod-scenes-paired": paired_table,
    "sfod-scenes-choice": choice_table,
    "sfod-scenes-verdict": verdict_table,
}
