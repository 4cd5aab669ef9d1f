"""Repeated runs, which differ in seed or fold alone: mean and spread of their scores."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_core.csv_tables import to_csv
from vision_core.errors import UsageError
from vision_core.evaluation.rows import Row
from vision_core.files import write_atomic

SPREAD = "spread.csv"  # file name, beside the run folders
_HEADER = ("experiment", "model", "metric", "mean", "spread", "over")
_REPEATED = re.compile(r"-?\b(seed|fold)-(\d+)")


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Metric of a model over the repeated runs of an experiment.

    Attributes:
        experiment: Name of its runs without seed and fold; the name of the scored list, where that is empty.
        model: Name of the model.
        metric: Name of the metric.
        by_seed: Values of each seed, one per fold.
    """

    experiment: str
    model: str
    metric: str
    by_seed: tuple[tuple[float, ...], ...]

    @property
    def values(self) -> tuple[float, ...]:
        """Values to average: the mean over folds of each seed, or the folds of one seed."""
        return tuple(map(statistics.fmean, self.by_seed)) if len(self.by_seed) > 1 else self.by_seed[0]

    @property
    def mean(self) -> float:
        """Mean over seeds, or over folds where there is one seed."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation of ``values``; None of a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def over(self) -> str:
        """Seeds and folds that the spread is over, in words."""
        folds = max(map(len, self.by_seed))
        if len(self.by_seed) == 1:
            return f"{folds} folds" if folds > 1 else "one run"
        return f"{len(self.by_seed)} seeds" + (f" of {folds} folds each" if folds > 1 else "")

    def sentence(self) -> str:
        """Describe mean and spread in percent."""
        told = f"{self.experiment} {self.model}".ljust(24) + f" {self.metric} {100 * self.mean:5.1f}"
        return told if self.spread is None else f"{told} ± {100 * self.spread:.1f} over {self.over}"


def experiment_of(run: str) -> str:
    """Return the name of a run without seed and fold; empty where it is nothing else."""
    return _REPEATED.sub("", run).strip("-")


def find_repeats(rows: Mapping[str, Sequence[Row]]) -> list[Repeated]:
    """Group every defined metric by experiment; each model's first metric comes first.

    Args:
        rows: Scores by name of the run, such as ``night-seed-0`` or ``seed-1-fold-2-teacher``.
    """
    groups: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for name, found in rows.items():
        experiment, seed = experiment_of(name), dict(_REPEATED.findall(name)).get("seed", "")
        for row in found:
            for metric, value in row.metrics.items():
                if value is not None:
                    group = groups.setdefault((experiment or row.split, row.model, metric), {})
                    group.setdefault(seed, []).append(value)
    return [
        Repeated(experiment=experiment, model=model, metric=metric, by_seed=tuple(map(tuple, by_seed.values())))
        for (experiment, model, metric), by_seed in groups.items()
    ]


def headlines(repeats: Sequence[Repeated]) -> list[Repeated]:
    """Select the first metric of each model of each experiment."""
    first: dict[tuple[str, str], Repeated] = {}
    for each in repeats:
        first.setdefault((each.experiment, each.model), each)
    return list(first.values())


def refuse_foreign_spread(folder: Path) -> None:
    """Refuse to replace a table of that name that is not ours.

    Raises:
        UsageError: The file has other columns.
    """
    path = folder / SPREAD
    if path.exists() and not (path.is_file() and path.read_bytes().startswith(to_csv(_HEADER, []).encode())):
        raise UsageError(f"'{path}' is of no runs of this package, so it is not replaced. Give another --out.")


def write_repeats(path: Path, repeats: Sequence[Repeated]) -> None:
    """Write them as a CSV, in the units of ``evaluation.json``."""
    rows = [[each.experiment, each.model, each.metric, each.mean, each.spread, each.over] for each in repeats]
    write_atomic(path, to_csv(_HEADER, rows))
