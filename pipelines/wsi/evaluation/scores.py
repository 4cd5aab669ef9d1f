"""Scores of predictions, with intervals, and ROC curves. Micro and macro are told apart by name."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.wsi.evaluation.predictions import PREDICTIONS, Predictions, pool, read_predictions, write_predictions
from vision_core.evaluation.classification import (
    Labels,
    auc,
    binary_auc,
    f1,
    kappa,
    macro_accuracy,
    macro_f1,
    macro_precision,
    micro_accuracy,
    resamples,
)
from vision_core.evaluation.rows import Row
from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE

_INTERVAL = (2.5, 97.5)
_WITH_INTERVAL = {
    "auc",
    "micro_accuracy",
    "macro_accuracy",
    "macro_f1",
    "argmax_micro_accuracy",
    "argmax_macro_accuracy",
}
_AGREEMENTS: Mapping[str, Callable[[Labels, Labels], float]] = {
    "micro_accuracy": micro_accuracy,
    "macro_accuracy": macro_accuracy,
    "macro_f1": macro_f1,
    "macro_precision": macro_precision,
    "kappa": kappa,
}
Rows = Labels | slice

_FOLD = re.compile(r"-?\bfold-(\d+)")


def score(model: str, split: str, found: Predictions, fold: int = 0) -> Row:
    """Discrimination and agreement; what has no prefix is of the classes called, ``argmax_`` of the most probable.

    Intervals are of a bootstrap over patients, 95 %; mean and spread of its samples stand beside the plain area.

    Args:
        model: What the row is called.
        split: Name of the list.
        found: Of a model.
        fold: Seeds the bootstrap.
    """
    measured = _Measured(resamples(_rows_of_patients(found.patients), found.labels, fold))
    areas = measured("auc", lambda rows: auc(found.labels[rows], found.probabilities[rows]))
    for prefix, called in (("", found.called), ("argmax_", found.probabilities.argmax(axis=1).astype(np.int64))):
        for name, metric in _AGREEMENTS.items():
            measured(f"{prefix}{name}", partial(_of_rows, metric, found.labels, called))
    if len(areas):
        measured.values |= {"auc_bootstrap_mean": float(areas.mean()), "auc_bootstrap_std": float(areas.std(ddof=1))}
    return Row(
        model=model,
        split=split,
        counts={"patients": len(set(found.patients)), "slides": len(found)},
        metrics=measured.values,
        intervals=measured.intervals,
        per_class=_per_class(found),
    )


def draw_roc(path: Path, found: Mapping[str, Predictions]) -> None:
    """The ROC curve of each model as a PNG; of more than two classes, of each class against the rest."""
    from matplotlib.figure import Figure  # takes longer than all else here

    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for model, predictions in found.items():
        for each, name in _drawn(predictions):
            rates = roc(predictions.labels == each, predictions.probabilities[:, each])
            axes.plot(*rates, drawstyle="steps-post", label=f"{model}, {name}")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.legend(loc="lower right", frameon=False)
    axes.set_title(RESEARCH_NOTICE, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_atomic(path, content.getvalue())


def roc(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates ``(t,)`` from the strictest threshold to the laxest."""
    thresholds = np.concatenate([[np.inf], np.unique(scores)[::-1]])
    called: NDArray[np.bool_] = scores[None] >= thresholds[:, None]
    false = called[:, ~truth].sum(axis=1) / max(int((~truth).sum()), 1)
    true = called[:, truth].sum(axis=1) / max(int(truth.sum()), 1)
    return np.asarray(false, np.float64), np.asarray(true, np.float64)


class _Measured:
    """Metrics on all slides, and their intervals over resamples; each metric takes rows."""

    def __init__(self, draws: Sequence[Labels]) -> None:
        self.draws = draws
        self.values: dict[str, float | None] = {}
        self.intervals: dict[str, tuple[float, float]] = {}

    def __call__(self, name: str, metric: Callable[[Rows], float]) -> NDArray[np.float64]:
        """Note a metric; returns its values on the resamples, none where it is undefined or they are not wanted."""
        self.values[name] = _defined(metric(slice(None)))
        if self.values[name] is None or name not in _WITH_INTERVAL:
            return np.empty(0)
        samples: NDArray[np.float64] = np.array([metric(rows) for rows in self.draws])
        samples = samples[np.isfinite(samples)]
        if len(samples) < 2:
            return np.empty(0)
        low, high = np.percentile(samples, _INTERVAL)
        self.intervals[name] = (float(low), float(high))
        return samples


def _of_rows(metric: Callable[[Labels, Labels], float], labels: Labels, called: Labels, rows: Rows) -> float:
    return metric(labels[rows], called[rows])


def _per_class(found: Predictions) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for each, name in enumerate(found.classes):
        truth, called = found.labels == each, found.called == each
        values[f"{name}.auc"] = _defined(binary_auc(truth.astype(np.int64), found.probabilities[:, each]))
        values[f"{name}.f1"] = f1(truth, called) if truth.any() else None
        values[f"{name}.recall"] = float(called[truth].mean()) if truth.any() else None
    return values


def _rows_of_patients(patients: Sequence[str]) -> list[Labels]:
    rows: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(patient, []).append(row)
    return [np.array(each, np.int64) for each in rows.values()]


def _drawn(found: Predictions) -> list[tuple[int, str]]:
    named = list(enumerate(found.classes))
    return named[1:] if len(named) == 2 else named


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def pooled(runs: Mapping[str, Path]) -> list[str]:
    """A line for each experiment of several folds: the area and accuracies over all slides at once.

    Args:
        runs: Folders by name; names differ in ``fold-<n>`` within an experiment. The list of all slides is written
            beside them, as ``<experiment>-predictions.csv``.
    """
    groups: dict[str, list[Path]] = {}
    for name, folder in runs.items():
        file = folder / "pictures" / PREDICTIONS
        if _FOLD.search(name) and file.exists():
            groups.setdefault(_FOLD.sub("", name).strip("-"), []).append(file)
    return [_line(name, files) for name, files in groups.items() if len(files) > 1]


def _line(name: str, files: list[Path]) -> str:
    found: Predictions = pool([read_predictions(file) for file in files])
    folder = files[0].parent.parent.parent
    write_predictions(folder / "-".join(filter(None, (name, PREDICTIONS))), found)
    row = score(name or "pooled", "all folds", found)
    told = []
    for metric in ("auc", "micro_accuracy", "macro_accuracy"):
        value, interval = row.metrics[metric], row.intervals.get(metric)
        shown = "undefined" if value is None else f"{100 * value:.1f}"
        told.append(f"{metric} {shown}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""))
    return f"{name or 'all':24} {len(files)} folds pooled, {len(found)} slides: {', '.join(told)}"
