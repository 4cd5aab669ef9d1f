"""Calibration of a detector's scores on a labelled list: what a score means, and which one to work at.

Detections are matched with the labels by the VOC rule of ``average_precision`` (IoU above 0.5). A match with a
difficult object or a crowd region counts neither way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from vision_core.bundles.card import Card
from vision_core.config.schema import Fraction, Section
from vision_core.detection.average_precision import GroundTruth, match_image, ranked_places
from vision_core.errors import CheckpointError
from vision_core.results import Detections

_BINS = 10
_WANTED_PRECISION = 0.9
Floats = NDArray[np.float64]


class ScoreTable(Section):
    """Scores of detections against labels, of one class or of all; None where nothing can be said."""

    objects: int = Field(ge=0, description="Labelled objects that count.")
    detections: tuple[int, ...] = Field(description="Histogram: detections by bin of score.")
    precision: tuple[Fraction | None, ...] = Field(description="Reliability: share of right ones by bin of score.")
    operating_score: Fraction | None = Field(description="Detections from this score on have the best F1 ...")
    f1: Fraction | None = Field(description="... which is this.")
    sure_score: Fraction | None = Field(description="Lowest score from which on nine of ten detections are right.")


class DetectorCalibration(Section):
    """Calibration of a detector, as its card holds it."""

    data: str = Field(description="The labelled list, and whose it is.")
    manifest: str = Field(description="Hash over names and sizes of its images.")
    images: int = Field(ge=0, description="Images of the list.")
    bins: tuple[Fraction, ...] = Field(description="Edges of the bins of score; the last bin has both of its edges.")
    all: ScoreTable = Field(description="All classes together.")
    per_class: dict[str, ScoreTable] = Field(description="By class of the detector that is labelled in the list.")
    statistics: dict[str, Any] | None = Field(
        None, description="Boxes and features on the list, by which detectors that start from this one are compared."
    )


def calibrate(
    truths: Sequence[GroundTruth],
    found: Sequence[Detections],
    classes: tuple[str, ...],
    *,
    data: str,
    manifest: str,
) -> DetectorCalibration:
    """Compare scores with labels.

    Args:
        truths: One per image.
        found: Detections, one per image in the same order.
        classes: Names that the labels of ``truths`` index.
        data: Description of the list.
        manifest: Hash of its images.
    """
    matched = [_match_class(truths, found, label, name) for label, name in enumerate(classes)]
    pooled = _Scored(
        objects=sum(each.objects for each in matched),
        scores=np.concatenate([each.scores for each in matched]),
        right=np.concatenate([each.right for each in matched]),
    )
    edges = np.linspace(0, 1, _BINS + 1)
    return DetectorCalibration(
        data=data,
        manifest=manifest,
        images=len(truths),
        bins=tuple(round(float(edge), 6) for edge in edges),
        all=_table(pooled, edges),
        per_class={name: _table(each, edges) for name, each in zip(classes, matched, strict=True)},
    )


def read_calibration(card: Card) -> DetectorCalibration | None:
    """Read the calibration of a detector from its card; None if it has none.

    Raises:
        CheckpointError: The card holds something else in its place.
    """
    if not card.calibration:
        return None
    try:
        return DetectorCalibration.model_validate(card.calibration)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("calibration", *first["loc"]))
        raise CheckpointError(f"card.json, {place}: {first['msg']}. Fetch the bundle again.") from error


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """Labelled objects and the detections that count, with their unrounded scores."""

    objects: int
    scores: Floats
    right: NDArray[np.bool_]


def _match_class(truths: Sequence[GroundTruth], found: Sequence[Detections], label: int, name: str) -> _Scored:
    matches = [match_image(truth, each, label, name) for truth, each in zip(truths, found, strict=True)]
    outcomes = np.concatenate([np.empty(0, np.int64), *(each.outcomes for each in matches)])
    scores = np.concatenate([np.empty(0), *(each.scores[ranked_places(each, name)] for each in found)])
    counts = outcomes != 0
    return _Scored(objects=sum(each.num_truths for each in matches), scores=scores[counts], right=outcomes[counts] > 0)


def _table(scored: _Scored, edges: Floats) -> ScoreTable:
    counts, right = (np.histogram(each, edges)[0] for each in (scored.scores, scored.scores[scored.right]))
    thresholds, true, false = _cumulated(scored)
    f1 = 2 * true / np.maximum(true + false + scored.objects, 1)
    best = int(f1.argmax()) if len(f1) and f1.max() > 0 else None  # the highest of equally good scores
    sure = np.flatnonzero(true >= _WANTED_PRECISION * (true + false))
    return ScoreTable(
        objects=scored.objects,
        detections=tuple(int(count) for count in counts),
        precision=tuple(float(each / count) if count else None for each, count in zip(right, counts, strict=True)),
        operating_score=None if best is None else float(thresholds[best]),
        f1=None if best is None else float(f1[best]),
        sure_score=float(thresholds[sure[-1]]) if len(sure) else None,
    )


def _cumulated(scored: _Scored) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Count right and wrong detections from each different score on, highest first."""
    order = np.argsort(-scored.scores, kind="stable")
    scores, right = scored.scores[order], scored.right[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.empty(0, np.int64)
    return scores[ends], right.cumsum()[ends], (~right).cumsum()[ends]
