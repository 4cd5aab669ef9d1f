"""Errors of a detector by cause: what average precision at IoU 0.5 would gain without each (TIDE, arXiv 2008.08115).

A false positive has one of five causes, tried in this order, as in the authors' tool: *localisation*, its class is
right and its largest IoU with an object of this class lies from 0.1 to below 0.5; *classification*, it overlaps an
object of another class by 0.5 or more; *duplicate*, its object is taken by a detection of higher score; *background*,
it overlaps no object by more than 0.1; else *both* class and place are wrong. An object that nothing found, and that no
error of the first two kinds points at, is *missed*.

The gain of a cause is the average precision (COCO's 101 points of recall, mean over classes) with its errors corrected,
and no others, minus that of the detections as they are. A correction of *localisation* or *classification* makes the
best such detection of an object that nothing found a true positive and takes the others out; *missed* takes the objects
out; other causes take the detections out. Gains do not add up.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vision_core.detection.average_precision import Floats, GroundTruth
from vision_core.results import Detections

CAUSES = ("classification", "localisation", "both", "duplicate", "background", "missed")
_FOREGROUND, _BACKGROUND = 0.5, 0.1
_RECALLS = np.linspace(0, 1, 101)
_Object = tuple[int, int]  # image, place in it


@dataclass(frozen=True, kw_only=True)
class ErrorsByCause:
    """Errors of one model on one list.

    Attributes:
        ap50: Average precision at IoU 0.5; None without a labelled object.
        gains: What it would gain without the errors of each cause; None without a labelled object.
        counts: Number of errors of each cause.
    """

    ap50: float | None
    gains: Mapping[str, float | None]
    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class _Detection:
    """A detection that counts: its class and score, and if it is false its cause and the object that it points at."""

    label: int
    score: float
    cause: str = ""
    object: _Object | None = None
    object_label: int = -1


@dataclass(kw_only=True)
class _Sorted:
    """Detections of all images, and objects by class."""

    detections: list[_Detection] = field(default_factory=list)
    objects: Counter[int] = field(default_factory=Counter)
    missed: Counter[int] = field(default_factory=Counter)
    taken: set[_Object] = field(default_factory=set)


def errors_by_cause(
    truths: Sequence[GroundTruth],
    found: Sequence[Detections],
    classes: tuple[str, ...],
    counted: Sequence[str] | None = None,
) -> ErrorsByCause:
    """Sort the errors of a model by cause.

    Args:
        truths: One per image; difficult and crowd boxes are neither right nor wrong.
        found: One per image, in the same order.
        classes: Names that the labels of ``truths`` index; detections of other classes are left out.
        counted: Classes that are averaged over; None: all.
    """
    all_sorted = _Sorted()
    for image, (truth, each) in enumerate(zip(truths, found, strict=True)):
        _sort_image(image, truth, each, classes, all_sorted)
    labels = {label for label, name in enumerate(classes) if counted is None or name in counted}
    all_sorted.objects = Counter({label: all_sorted.objects[label] for label in labels & set(all_sorted.objects)})
    all_sorted.missed = Counter({label: all_sorted.missed[label] for label in labels & set(all_sorted.missed)})
    counts = Counter(each.cause for each in all_sorted.detections if each.cause and each.label in labels)
    counts["missed"] = all_sorted.missed.total()
    ap50 = _mean_precision(all_sorted.detections, all_sorted.objects)
    gains: dict[str, float | None] = dict.fromkeys(CAUSES)
    if ap50 is not None:
        for cause in CAUSES:
            gone = all_sorted.missed if cause == "missed" else Counter[int]()
            left = {label: number - gone[label] for label, number in all_sorted.objects.items()}
            without = _mean_precision(_corrected(all_sorted, cause), left)
            gains[cause] = max(0.0, (without or 0.0) - ap50)
    return ErrorsByCause(ap50=ap50, gains=gains, counts={cause: counts[cause] for cause in CAUSES})


def _sort_image(image: int, truth: GroundTruth, found: Detections, classes: tuple[str, ...], into: _Sorted) -> None:
    counted = ~(truth.difficult | truth.crowd)
    labels = truth.labels[counted]
    into.objects.update(labels.tolist())
    numbers = np.array([classes.index(name) if name in classes else -1 for name in found.classes], dtype=np.int64)
    order = np.flatnonzero(numbers[found.labels] >= 0)  # the highest score comes first
    guessed, boxes = numbers[found.labels[order]], found.boxes[order].astype(np.float64)
    overlaps, _ = _overlaps(boxes, truth.boxes[counted])
    is_same = guessed[:, None] == labels[None, :]
    taken = _matched(overlaps * is_same)
    ignored = ~counted
    _, shares = _overlaps(boxes, truth.boxes[ignored])
    is_ignored = ((shares >= _FOREGROUND) & (guessed[:, None] == truth.labels[ignored][None, :])).any(axis=1)
    pointed: set[int] = set()
    for row in range(len(order)):
        label, score = int(guessed[row]), float(found.scores[order[row]])
        if taken[row] >= 0:
            into.detections.append(_Detection(label=label, score=score))
        elif not is_ignored[row]:
            cause, place = _cause(overlaps[row], is_same[row])
            target = {"object": (image, place), "object_label": int(labels[place])} if place >= 0 else {}
            pointed.update([place] if place >= 0 else [])
            into.detections.append(_Detection(label=label, score=score, cause=cause, **target))  # type: ignore[arg-type]
    found_places = set(taken[taken >= 0].tolist())
    into.taken.update((image, place) for place in found_places)
    into.missed.update(int(labels[place]) for place in set(range(len(labels))) - found_places - pointed)


def _overlaps(boxes: Floats, others: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Compute IoU, and the share of each box that lies in each of the others: ``(N, M)``."""
    ends = others.astype(np.float64)
    corners = np.minimum(boxes[:, None, 2:], ends[None, :, 2:]) - np.maximum(boxes[:, None, :2], ends[None, :, :2])
    shared = corners.clip(min=0).prod(axis=2)
    areas, other_areas = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, ends))
    least = np.finfo(np.float64).tiny
    union = areas[:, None] + other_areas[None, :] - shared
    return shared / np.maximum(union, least), shared / np.maximum(areas, least)[:, None]


def _matched(overlaps: Floats) -> NDArray[np.int64]:
    """Give each detection, best score first, the free object that it overlaps most; -1 for none."""
    free = overlaps.copy()
    taken = np.full(len(overlaps), -1, np.int64)
    for row in np.flatnonzero(overlaps.max(axis=1, initial=0.0) >= _FOREGROUND):
        place = int(free[row].argmax())
        if free[row, place] >= _FOREGROUND:
            taken[row] = place
            free[:, place] = 0
    return taken


def _cause(overlaps: Floats, is_same: NDArray[np.bool_]) -> tuple[str, int]:
    """Name the cause of a false positive, and the place of the object that it points at; -1 for none."""
    if not len(overlaps):
        return "background", -1
    same, other = overlaps * is_same, overlaps * ~is_same
    if _BACKGROUND <= same.max() < _FOREGROUND:
        return "localisation", int(same.argmax())
    if other.max() >= _FOREGROUND:
        return "classification", int(other.argmax())
    if same.max() >= _FOREGROUND:
        return "duplicate", -1
    return ("background" if overlaps.max() <= _BACKGROUND else "both"), -1


def _corrected(found: _Sorted, cause: str) -> list[_Detection]:
    """Return the detections with the errors of one cause corrected."""
    kept = [each for each in found.detections if each.cause != cause]
    best: dict[_Object, _Detection] = {}
    for each in found.detections:
        if each.cause == cause and each.object is not None and each.object not in found.taken:
            before = best.get(each.object)
            best[each.object] = each if before is None or each.score > before.score else before
    return kept + [_Detection(label=each.object_label, score=each.score) for each in best.values()]


def _mean_precision(detections: Sequence[_Detection], objects: Mapping[int, int]) -> float | None:
    """Average over the classes with objects; one without objects but with false positives counts as 0."""
    by_class: dict[int, list[_Detection]] = {label: [] for label in objects}
    for each in detections:
        if each.label in by_class:
            by_class[each.label].append(each)
    values = [_precision(by_class[label], number) for label, number in objects.items() if number or by_class[label]]
    return float(np.mean(values)) if values else None


def _precision(detections: Sequence[_Detection], number: int) -> float:
    if not number or not detections:
        return 0.0
    order = np.argsort([-each.score for each in detections], kind="stable")
    is_true = np.array([not each.cause for each in detections])[order]
    true = is_true.cumsum()
    precision = np.maximum.accumulate((true / np.arange(1, len(true) + 1))[::-1])[::-1]
    places = np.searchsorted(true / number, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(places, len(precision))].mean())
