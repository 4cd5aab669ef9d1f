"""Precision-recall curves of detectors at IoU 0.5, as a table and as a picture."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision_core.csv_tables import to_csv
from vision_core.detection.average_precision import Floats, GroundTruth, match_image, recall_precision
from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE, Detections

TABLE, PICTURE = "precision_recall.csv", "precision_recall.png"
_HEADER = ("model", "class", "score", "recall", "precision")
_MOST_DRAWN = 10


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Precision and recall of one class of one model, by falling score.

    Attributes:
        scores: ``(N,)``, of detections that are right or wrong; those of ignored objects are left out.
        recall: ``(N,)``.
        precision: ``(N,)``.
    """

    scores: Floats
    recall: Floats
    precision: Floats


def precision_recall(
    truths: Sequence[GroundTruth], found: Sequence[Detections], classes: tuple[str, ...]
) -> dict[str, Curve]:
    """Compute the curve of each class that has a labelled object, matched as ``average_precision.voc07_ap50``.

    Args:
        truths: One per image.
        found: One per image, in the same order.
        classes: Names that the labels of ``truths`` index.
    """
    curves = {}
    for label, name in enumerate(classes):
        matches = [match_image(truth, each, label, name) for truth, each in zip(truths, found, strict=True)]
        number = sum(each.num_truths for each in matches)
        if not number:
            continue
        scores = np.concatenate([each.scores for each in matches])
        outcomes = np.concatenate([each.outcomes for each in matches])
        order = np.argsort(-scores, kind="stable")
        order = order[outcomes[order] != 0]
        recall, precision = recall_precision(outcomes[order], number)
        curves[name] = Curve(scores=scores[order], recall=recall, precision=precision)
    return curves


def write_curves(folder: Path, models: Mapping[str, Mapping[str, Curve]]) -> dict[str, str]:
    """Write curves of models by class as CSV and PNG; returns the caption of the picture by its name."""
    rows = [
        (model, name, f"{score:.3f}", f"{recall:.6f}", f"{precision:.6f}")
        for model, curves in models.items()
        for name, curve in curves.items()
        for score, recall, precision in zip(curve.scores, curve.recall, curve.precision, strict=True)
    ]
    write_atomic(folder / TABLE, to_csv(_HEADER, rows))
    names = list(dict.fromkeys(name for curves in models.values() for name in curves))
    if not names:
        return {}
    _draw(folder / PICTURE, models, names[:_MOST_DRAWN])
    left = f"; the first {_MOST_DRAWN} of {len(names)} classes" if len(names) > _MOST_DRAWN else ""
    return {PICTURE: f"Precision against recall at IoU 0.5, all scores{left}. The numbers are in {TABLE}."}


def _draw(path: Path, models: Mapping[str, Mapping[str, Curve]], names: Sequence[str]) -> None:
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(4 * len(models), 4), dpi=120)
    figure.subplots_adjust(
        left=0.6 / 4 / len(models), right=1 - 0.1 / 4 / len(models), bottom=0.13, top=0.84, wspace=0.25
    )
    for axes, (model, curves) in zip(figure.subplots(1, len(models), squeeze=False)[0], models.items(), strict=True):
        for place, name in enumerate(names):
            if name in curves:
                line = {"label": name, "color": f"C{place}", "linewidth": 1, "where": "post"}
                axes.step(curves[name].recall, curves[name].precision, **line)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01), title=model)
        axes.legend(frameon=False, fontsize=7)
    figure.suptitle(RESEARCH_NOTICE, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_atomic(path, content.getvalue())
