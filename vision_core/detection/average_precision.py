"""Average precision: VOC-2007 as in published benchmarks, area under the curve, and COCO.

Ground truth labels index ``classes``, labels of detections their own ``classes``; both are matched by name. A class
without a labelled object has no average precision and takes no part in the mean.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from vision_core.results import Detections

Floats = NDArray[np.float64]
COCO_SIZES = ("small", "medium", "large")
_IOU = 0.5
_FROM_ONE = np.array([1, 1, 0, 0], dtype=np.float32)  # VOC counts pixels from 1


class GroundTruth(Protocol):
    """Labelled objects of one image, such as an ``ImageRecord``."""

    @property
    def boxes(self) -> NDArray[np.float32]:
        """``(M, 4)``, ``xyxy`` pixels, counted from 0."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """``(M,)`` int64."""

    @property
    def difficult(self) -> NDArray[np.bool_]:
        """``(M,)`` bool; matching such an object is neither right nor wrong."""

    @property
    def crowd(self) -> NDArray[np.bool_]:
        """``(M,)`` bool; regions around several objects, treated like difficult ones."""


@dataclass(frozen=True, kw_only=True)
class AveragePrecision:
    """Average precision in [0, 1] by class.

    Attributes:
        mean: Over the classes that have one; None if none has.
        per_class: None where no object is labelled (apart from difficult ones).
        truths: Number of labelled objects that count, by class.
        detections: Number of detections of any score, by class.
    """

    mean: float | None
    per_class: dict[str, float | None]
    truths: dict[str, int]
    detections: dict[str, int]


def voc07_ap50(
    truths: Sequence[GroundTruth], found: Sequence[Detections], classes: tuple[str, ...]
) -> AveragePrecision:
    """Compute VOC-2007 average precision (IoU above 0.5, eleven points of recall).

    Rounding follows the published evaluations: scores to three decimals, corners to one, counted from 1, and boxes one
    pixel wider and higher than in continuous coordinates. Detections of equal score keep the order of the images.

    Args:
        truths: One per image.
        found: One per image, in the same order.
        classes: Names that the labels of ``truths`` index; all are scored.
    """
    return _integrated(_match_all(truths, found, classes), classes, eleven_points)


def area_ap50(truths: Sequence[GroundTruth], found: Sequence[Detections], classes: tuple[str, ...]) -> AveragePrecision:
    """Compute VOC average precision from 2010 on, matched as ``voc07_ap50``."""
    return _integrated(_match_all(truths, found, classes), classes, area_under_envelope)


def all_metrics(
    truths: Sequence[GroundTruth], found: Sequence[Detections], classes: tuple[str, ...]
) -> dict[str, AveragePrecision]:
    """Compute all three by name; the two of VOC share one matching."""
    matched = _match_all(truths, found, classes)
    return {
        "voc07_ap50": _integrated(matched, classes, eleven_points),
        "area_ap50": _integrated(matched, classes, area_under_envelope),
        "coco_ap": coco_ap(truths, found, classes),
    }


def coco_ap(truths: Sequence[GroundTruth], found: Sequence[Detections], classes: tuple[str, ...]) -> AveragePrecision:
    """Compute COCO average precision (IoU 0.50 to 0.95); difficult and crowd boxes are ignored."""
    return _coco_average(truths, found, classes, slice(None))


def coco_ap50(truths: Sequence[GroundTruth], found: Sequence[Detections], classes: tuple[str, ...]) -> AveragePrecision:
    """Compute COCO average precision at IoU 0.5 alone, over its 101 points of recall."""
    return _coco_average(truths, found, classes, slice(1))


def coco_ap_by_size(
    truths: Sequence[GroundTruth],
    found: Sequence[Detections],
    classes: tuple[str, ...],
    counted: Sequence[str] | None = None,
) -> dict[str, float | None]:
    """Compute COCO average precision of small, medium and large objects: below 32², up to 96², and above, in pixels.

    A size without a labelled object has none; ``counted`` names the classes that are averaged over, all if None.
    """
    by_class, _ = _coco_scores(truths, found, classes, slice(None))
    by_class = by_class[[counted is None or name in counted for name in classes]]
    means = {}
    for place, name in enumerate(COCO_SIZES, start=1):
        values = by_class[:, place][by_class[:, place] > -1]  # -1: of a class without such an object
        means[name] = float(values.mean()) if len(values) else None
    return means


def _coco_average(
    truths: Sequence[GroundTruth], found: Sequence[Detections], classes: tuple[str, ...], overlaps: slice
) -> AveragePrecision:
    by_class, (counts, detections) = _coco_scores(truths, found, classes, overlaps)
    labels = range(len(classes))
    values = [float(by_class[label, 0]) if label in counts else None for label in labels]
    return _summary(classes, values, [counts[label] for label in labels], [detections[label] for label in labels])


def _coco_scores(
    truths: Sequence[GroundTruth], found: Sequence[Detections], classes: tuple[str, ...], overlaps: slice
) -> tuple[Floats, tuple[Counter[int], Counter[int]]]:
    """Compute precision ``(classes, 1 + sizes)``, -1 without an object, and numbers of objects and detections."""
    annotations = [entry for index, truth in enumerate(truths) for entry in _coco_truth(index, truth)]
    for number, entry in enumerate(annotations, start=1):  # COCO reads id 0 as "not matched"
        entry["id"] = number
    scored = [entry for index, each in enumerate(found) for entry in _coco_found(index, each, classes)]
    counts = Counter(entry["category_id"] for entry in annotations if not entry["iscrowd"])
    detections = Counter(entry["category_id"] for entry in scored)
    by_class = np.full((len(classes), 1 + len(COCO_SIZES)), -1.0)
    if counts:
        data = COCO(
            {
                "images": [{"id": index} for index in range(len(truths))],
                "categories": [{"id": index, "name": name} for index, name in enumerate(classes)],
                "annotations": annotations,
            }
        )
        by_class = _coco_precision(data, scored)[overlaps].mean(axis=0)
    return by_class, (counts, detections)


def eleven_points(recall: Floats, precision: Floats) -> float:
    """Average the best precision at recall >= 0, 0.1, ... 1; 0 where recall is lower."""
    total = 0.0
    for point in np.arange(0.0, 1.1, 0.1):  # this grid and this order of additions, as published scripts have them
        total += precision[recall >= point].max(initial=0.0) / 11.0
    return float(total)


def area_under_envelope(recall: Floats, precision: Floats) -> float:
    """Compute the area under the envelope, whose precision never rises with recall."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Detections of one class in one image, matched with the ground truth.

    Attributes:
        num_truths: Objects that count.
        scores: ``(N,)``, highest first.
        outcomes: ``(N,)``: 1 for a true positive, -1 for a false positive, 0 for an ignored object.
    """

    num_truths: int
    scores: Floats
    outcomes: NDArray[np.int64]


def match_image(truth: GroundTruth, found: Detections, label: int, name: str) -> Matches:
    """Match the detections of a class in one image by the VOC rule."""
    of_class = truth.labels == label
    boxes = truth.boxes[of_class].astype(np.float64) + _FROM_ONE
    ignored = (truth.difficult | truth.crowd)[of_class]
    taken = np.zeros(len(ignored), dtype=bool)
    scores, rounded = _as_result_file(found, name)
    order = np.argsort(-scores, kind="stable")
    outcomes = [_match_detection(box, boxes, ignored, taken) for box in rounded[order]]
    return Matches(num_truths=int((~ignored).sum()), scores=scores[order], outcomes=np.array(outcomes, dtype=np.int64))


def ranked_places(found: Detections, name: str) -> NDArray[np.int64]:
    """Return the places of a class among the detections of an image, in the order of ``match_image``."""
    label = found.classes.index(name) if name in found.classes else -1
    places = np.flatnonzero(found.labels == label)
    ranked: NDArray[np.int64] = places[np.argsort(-_as_result_file(found, name)[0], kind="stable")]
    return ranked


def pool_matches(matches: Sequence[Matches]) -> tuple[int, NDArray[np.int64]]:
    """Pool matches of several images: number of objects, and outcomes by falling score (stable)."""
    scores = np.concatenate([each.scores for each in matches]) if matches else np.empty(0)
    outcomes = np.concatenate([each.outcomes for each in matches]) if matches else np.empty(0, np.int64)
    return sum(each.num_truths for each in matches), outcomes[np.argsort(-scores, kind="stable")]


def recall_precision(outcomes: NDArray[np.int64], num_truths: int) -> tuple[Floats, Floats]:
    """Compute recall and precision after each detection of ``outcomes``, best score first."""
    true, false = np.cumsum(outcomes > 0), np.cumsum(outcomes < 0)
    return true / num_truths, true / np.maximum(true + false, np.finfo(np.float64).eps)


_Matched = list[tuple[int, NDArray[np.int64]]]  # of each class: objects, and outcomes by falling score


def _match_all(truths: Sequence[GroundTruth], found: Sequence[Detections], classes: tuple[str, ...]) -> _Matched:
    return [
        pool_matches([match_image(truth, each, label, name) for truth, each in zip(truths, found, strict=True)])
        for label, name in enumerate(classes)
    ]


def _integrated(
    matched: _Matched, classes: tuple[str, ...], integrate: Callable[[Floats, Floats], float]
) -> AveragePrecision:
    values = [integrate(*recall_precision(outcomes, count)) if count else None for count, outcomes in matched]
    return _summary(classes, values, [count for count, _ in matched], [len(outcomes) for _, outcomes in matched])


def _match_detection(box: Floats, truths: Floats, ignored: NDArray[np.bool_], taken: NDArray[np.bool_]) -> int:
    overlaps = _inclusive_iou(box, truths)
    best = int(overlaps.argmax()) if len(overlaps) else -1
    if best < 0 or not overlaps[best] > _IOU or (taken[best] and not ignored[best]):
        return -1
    taken[best] = True
    return 0 if ignored[best] else 1


def _inclusive_iou(box: Floats, others: Floats) -> Floats:
    corner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]) + 1.0
    shared = corner.clip(min=0.0).prod(axis=1)
    area = (box[2:] - box[:2] + 1.0).prod()
    return shared / (area + (others[:, 2:] - others[:, :2] + 1.0).prod(axis=1) - shared)  # type: ignore[no-any-return]


def _as_result_file(found: Detections, name: str) -> tuple[Floats, Floats]:
    """Round scores and boxes of a class as text result files do."""
    label = found.classes.index(name) if name in found.classes else -1
    rows = np.flatnonzero(found.labels == label)
    scores = [float(f"{found.scores[row]:.3f}") for row in rows]
    boxes = [[float(f"{edge:.1f}") for edge in found.boxes[row] + _FROM_ONE] for row in rows]
    return np.array(scores), np.array(boxes).reshape(-1, 4)


def _coco_truth(image: int, truth: GroundTruth) -> list[dict[str, Any]]:
    crowd = truth.crowd | truth.difficult
    return [
        {"image_id": image, "category_id": int(label), "iscrowd": int(crowd[index])} | _coco_box(truth.boxes[index])
        for index, label in enumerate(truth.labels)
    ]


def _coco_found(image: int, found: Detections, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    names = [found.classes[label] for label in found.labels]
    return [
        {"image_id": image, "category_id": classes.index(name), "score": float(found.scores[index])}
        | _coco_box(found.boxes[index])
        for index, name in enumerate(names)
        if name in classes
    ]


def _coco_box(box: NDArray[np.float32]) -> dict[str, Any]:
    left, top, right, bottom = (float(edge) for edge in box)
    return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}


def _coco_precision(data: COCO, scored: list[dict[str, Any]]) -> Floats:
    """Average COCO precision over recall: ``(overlaps, classes, 1 + sizes)``, -1 for a class without ground truth."""
    evaluator = COCOeval_faster(data, data.loadRes(scored), iouType="bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    # (overlaps, recalls, classes, areas, limits): the largest limit of detections.
    precision: Floats = np.asarray(evaluator.eval["precision"])[:, :, :, :, -1].mean(axis=1)
    return precision


def _summary(
    classes: tuple[str, ...], values: Sequence[float | None], truths: Sequence[int], detections: Sequence[int]
) -> AveragePrecision:
    present = [value for value in values if value is not None]
    return AveragePrecision(
        mean=float(np.mean(present)) if present else None,
        per_class=dict(zip(classes, values, strict=True)),
        truths={name: int(count) for name, count in zip(classes, truths, strict=True)},
        detections={name: int(count) for name, count in zip(classes, detections, strict=True)},
    )
