"""Folds together: every slide was tested once, by the model of the fold that did not train on it."""

import re
from collections.abc import Mapping
from pathlib import Path

from pipelines.wsi.evaluation.predictions import PREDICTIONS, Predictions, pool, read_predictions, write_predictions
from pipelines.wsi.evaluation.scores import score

_FOLD = re.compile(r"-?\bfold-(\d+)")


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
