"""Scores of predictions with confidence intervals, and ROC curves."""

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
    class_scores,
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
    """Score predictions: area under the ROC curve, and agreement of classes.

    Agreement is computed on the classes at the threshold (no prefix) and on the most probable ones (``argmax_``). 95 %
    intervals come from a bootstrap over patients.

    Args:
        model: Name of the row.
        split: Name of the list.
        found: Predictions of the model.
        fold: Number of the fold, for the seed of the bootstrap.
    """
    measured = _BootstrappedMetrics(resamples(_rows_of_patients(found.patients), found.labels, fold))
    areas = measured("auc", lambda rows: auc(found.labels[rows], found.probabilities[rows]))
    for prefix, called in (("", found.called), ("argmax_", found.probabilities.argmax(axis=1).astype(np.int64))):
        for name, metric in _AGREEMENTS.items():
            measured(f"{prefix}{name}", partial(_on_rows, metric, found.labels, called))
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
    """Draw the ROC curves of models as a PNG, one-vs-rest beyond two classes."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for model, predictions in found.items():
        named = list(enumerate(predictions.classes))
        for each, name in named[1:] if len(named) == 2 else named:
            rates = roc(predictions.labels == each, predictions.probabilities[:, each])
            axes.plot(*rates, drawstyle="steps-post", label=f"{model}, {name}")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.legend(loc="lower right", frameon=False)
    axes.set_title(RESEARCH_NOTICE, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_atomic(path, content.getvalue())


def roc(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute false and true positive rates ``(t,)``, from the strictest threshold on.

    A rate without cases is 0; scikit-learn gives NaN with a warning.
    """
    thresholds = np.concatenate([[np.inf], np.unique(scores)[::-1]])
    called: NDArray[np.bool_] = scores[None] >= thresholds[:, None]
    false = called[:, ~truth].sum(axis=1) / max(int((~truth).sum()), 1)
    true = called[:, truth].sum(axis=1) / max(int(truth.sum()), 1)
    return np.asarray(false, np.float64), np.asarray(true, np.float64)


class _BootstrappedMetrics:
    """Metrics on all slides, and their intervals over resamples."""

    def __init__(self, draws: Sequence[Labels]) -> None:
        self.draws = draws
        self.values: dict[str, float | None] = {}
        self.intervals: dict[str, tuple[float, float]] = {}

    def __call__(self, name: str, metric: Callable[[Rows], float]) -> NDArray[np.float64]:
        """Compute a metric of rows and, where wanted, its interval; return the samples."""
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


def _on_rows(metric: Callable[[Labels, Labels], float], labels: Labels, called: Labels, rows: Rows) -> float:
    return metric(labels[rows], called[rows])


def _per_class(found: Predictions) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    recalls, f1s = class_scores(found.labels, found.called, len(found.classes))
    for each, name in enumerate(found.classes):
        truth = (found.labels == each).astype(np.int64)
        values[f"{name}.auc"] = _defined(binary_auc(truth, found.probabilities[:, each]))
        values[f"{name}.f1"] = _defined(f1s[each])
        values[f"{name}.recall"] = _defined(recalls[each])
    return values


def _rows_of_patients(patients: Sequence[str]) -> list[Labels]:
    rows: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(patient, []).append(row)
    return [np.array(each, np.int64) for each in rows.values()]


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def pooled_summaries(runs: Mapping[str, Path]) -> list[str]:
    """Pool the predictions of the folds of each experiment, and summarise their scores.

    The pooled predictions are written beside the runs as ``<experiment>-predictions.csv``.

    Args:
        runs: Folders by name; within an experiment names differ in ``fold-<n>``.

    Returns:
        One line an experiment of several folds.
    """
    groups: dict[str, list[Path]] = {}
    for name, folder in runs.items():
        file = folder / "pictures" / PREDICTIONS
        if _FOLD.search(name) and file.exists():
            groups.setdefault(_FOLD.sub("", name).strip("-"), []).append(file)
    return [_pooled_summary(name, files) for name, files in groups.items() if len(files) > 1]


def _pooled_summary(name: str, files: list[Path]) -> str:
    found: Predictions = pool([read_predictions(file) for file in files])
    folder = files[0].parent.parent.parent
    write_predictions(folder / "-".join(filter(None, (name, PREDICTIONS))), found)
    row = score(name or "pooled", "all folds", found)
    shown = []
    for metric in ("auc", "micro_accuracy", "macro_accuracy"):
        value, interval = row.metrics[metric], row.intervals.get(metric)
        percent = "undefined" if value is None else f"{100 * value:.1f}"
        shown.append(
            f"{metric} {percent}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")
        )
    return f"{name or 'all':24} {len(files)} folds pooled, {len(found)} slides: {', '.join(shown)}"
