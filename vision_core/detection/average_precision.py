"""Average precision: the VOC-2007 rule of the published benchmarks, area under the curve, and COCO's.

Labels of the truth index ``classes``; those of detections their own ``classes``, matched by name. A class that nobody
labelled has no average precision and takes no part in the mean.
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
_IOU = 0.5
_FROM_ONE = np.array([1, 1, 0, 0], dtype=np.float32)  # VOC counts pixels from 1


class Truth(Protocol):
    """What is known of one image; an ``ImageRecord`` is one."""

    @property
    def boxes(self) -> NDArray[np.float32]:
        """``(M, 4)``, ``xyxy`` pixels, counted from 0."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """``(M,)``."""

    @property
    def difficult(self) -> NDArray[np.bool_]:
        """``(M,)``: neither wanted nor wrong."""

    @property
    def crowd(self) -> NDArray[np.bool_]:
        """``(M,)``: likewise, around several objects."""


@dataclass(frozen=True, kw_only=True)
class AveragePrecision:
    """Average precision in [0, 1] by class.

    Attributes:
        mean: Over the classes that have one; None if there is none.
        per_class: None where no object is labelled (apart from difficult ones).
        truths: Labelled objects that count.
        detections: Detections, of any score.
    """

    mean: float | None
    per_class: dict[str, float | None]
    truths: dict[str, int]
    detections: dict[str, int]


def voc07_ap50(truths: Sequence[Truth], found: Sequence[Detections], classes: tuple[str, ...]) -> AveragePrecision:
    """VOC-2007 average precision at an overlap above 0.5, over eleven points of recall.

    As the published detectors were scored: scores to three decimals, corners to one, counted from 1, and a pixel more
    wide and high than continuous coordinates say. Detections of equal score keep the order of the images.

    Args:
        truths: One per image.
        found: One per image, in the same order.
        classes: Names that the labels of ``truths`` index, all that are to be scored.
    """
    return _voc(truths, found, classes, eleven_points)


def area_ap50(truths: Sequence[Truth], found: Sequence[Detections], classes: tuple[str, ...]) -> AveragePrecision:
    """The same matching as ``voc07_ap50``, but the area under the precision envelope (VOC from 2010 on)."""
    return _voc(truths, found, classes, area_under_envelope)


def coco_ap(truths: Sequence[Truth], found: Sequence[Detections], classes: tuple[str, ...]) -> AveragePrecision:
    """COCO's average precision over overlaps 0.50 to 0.95; difficult boxes count as crowds, which are ignored."""
    annotations = [entry for index, truth in enumerate(truths) for entry in _coco_truth(index, truth)]
    for number, entry in enumerate(annotations, start=1):  # COCO reads id 0 as "not matched"
        entry["id"] = number
    scored = [entry for index, each in enumerate(found) for entry in _coco_found(index, each, classes)]
    wanted = Counter(entry["category_id"] for entry in annotations if not entry["iscrowd"])
    detections = Counter(entry["category_id"] for entry in scored)
    labels = range(len(classes))
    values: list[float | None] = [None for _ in labels]
    if wanted:
        data = COCO(
            {
                "images": [{"id": index} for index in range(len(truths))],
                "categories": [{"id": index, "name": name} for index, name in enumerate(classes)],
                "annotations": annotations,
            }
        )
        by_class = _coco_precision(data, scored).mean(axis=0)
        values = [float(by_class[label]) if label in wanted else None for label in labels]
    return _summary(classes, values, [wanted[label] for label in labels], [detections[label] for label in labels])


def eleven_points(recall: Floats, precision: Floats) -> float:
    """Mean of the best precision at a recall of at least 0, 0.1, ... 1; 0 where recall does not reach."""
    total = 0.0
    for point in np.arange(0.0, 1.1, 0.1):  # this grid and this order of additions, as published scripts have them
        total += precision[recall >= point].max(initial=0.0) / 11.0
    return float(total)


def area_under_envelope(recall: Floats, precision: Floats) -> float:
    """Area under the curve whose precision never rises with recall."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


@dataclass(frozen=True, kw_only=True)
class Matches:
    """The detections of one class in one image against its truth.

    Attributes:
        wanted: Objects that count.
        scores: ``(N,)``, highest first.
        outcomes: ``(N,)``: 1 for a hit, -1 for a miss, 0 for neither.
    """

    wanted: int
    scores: Floats
    outcomes: NDArray[np.int64]


def match_image(truth: Truth, found: Detections, label: int, name: str) -> Matches:
    """Match the detections of class ``name`` by the VOC rule; images do not depend on each other."""
    of_class = truth.labels == label
    boxes = truth.boxes[of_class].astype(np.float64) + _FROM_ONE
    ignored = (truth.difficult | truth.crowd)[of_class]
    taken = np.zeros(len(ignored), dtype=bool)
    scores, written = _written(found, name)
    order = np.argsort(-scores, kind="stable")
    outcomes = [_judge(box, boxes, ignored, taken) for box in written[order]]
    return Matches(wanted=int((~ignored).sum()), scores=scores[order], outcomes=np.array(outcomes, dtype=np.int64))


def pool_matches(matches: Sequence[Matches]) -> tuple[int, NDArray[np.int64]]:
    """Objects wanted and outcomes over several images, best score first; equal scores keep the order of images."""
    scores = np.concatenate([each.scores for each in matches]) if matches else np.empty(0)
    outcomes = np.concatenate([each.outcomes for each in matches]) if matches else np.empty(0, np.int64)
    return sum(each.wanted for each in matches), outcomes[np.argsort(-scores, kind="stable")]


def curve(outcomes: NDArray[np.int64], wanted: int) -> tuple[Floats, Floats]:
    """Recall and precision after each detection; ``outcomes`` best score first."""
    true, false = np.cumsum(outcomes > 0), np.cumsum(outcomes < 0)
    return true / wanted, true / np.maximum(true + false, np.finfo(np.float64).eps)


def _voc(
    truths: Sequence[Truth],
    found: Sequence[Detections],
    classes: tuple[str, ...],
    integrate: Callable[[Floats, Floats], float],
) -> AveragePrecision:
    values: list[float | None] = []
    counts, detections = [], []
    for label, name in enumerate(classes):
        wanted, hits = _match_class(truths, found, label, name)
        counts.append(wanted)
        detections.append(len(hits))
        values.append(integrate(*curve(hits, wanted)) if wanted else None)
    return _summary(classes, values, counts, detections)


def _match_class(
    truths: Sequence[Truth], found: Sequence[Detections], label: int, name: str
) -> tuple[int, NDArray[np.int64]]:
    """How many objects are wanted, and the outcomes of all detections, best score first."""
    matched = [match_image(truth, each, label, name) for truth, each in zip(truths, found, strict=True)]
    return pool_matches(matched)


def _judge(box: Floats, truths: Floats, ignored: NDArray[np.bool_], taken: NDArray[np.bool_]) -> int:
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


def _written(found: Detections, name: str) -> tuple[Floats, Floats]:
    """Scores and boxes of a class, as a result file in text would give them back."""
    rows = np.flatnonzero(found.labels == _label_of(name, found))
    scores = [float(f"{found.scores[row]:.3f}") for row in rows]
    boxes = [[float(f"{edge:.1f}") for edge in found.boxes[row] + _FROM_ONE] for row in rows]
    return np.array(scores), np.array(boxes).reshape(-1, 4)


def _label_of(name: str, found: Detections) -> int:
    return found.classes.index(name) if name in found.classes else -1


def _coco_truth(image: int, truth: Truth) -> list[dict[str, Any]]:
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
    """Precision averaged over recall, ``(overlaps, classes)``; -1 for a class without truth."""
    evaluator = COCOeval_faster(data, data.loadRes(scored), iouType="bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    # (overlaps, recalls, classes, areas, limits): all areas, the largest limit of detections.
    precision: Floats = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1].mean(axis=1)
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
