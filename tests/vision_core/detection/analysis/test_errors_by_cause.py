"""Errors by cause against sums done by hand, on COCO's 101 points of recall (51 of them up to one half)."""

from collections.abc import Sequence

import numpy as np
import pytest

from tests.vision_core.detection.test_average_precision import Labelled
from vision_core.detection.analysis.errors_by_cause import CAUSES, ErrorsByCause, errors_by_cause
from vision_core.detection.average_precision import coco_ap50
from vision_core.results import Detections

CAR, BUS = 0, 1
FIRST, SECOND = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
BESIDE_FIRST, BESIDE_SECOND = (4.0, 0.0, 14.0, 10.0), (24.0, 0.0, 34.0, 10.0)  # IoU 6 / 14
NOWHERE = (50.0, 50.0, 60.0, 60.0)
HALF = 51 / 101
Boxes = Sequence[tuple[tuple[float, ...], int]]
Scored = Sequence[tuple[tuple[float, ...], int, float]]


def labelled(boxes: Boxes, difficult: Sequence[bool] = ()) -> Labelled:
    return Labelled(
        boxes=np.array([box for box, _ in boxes], np.float32).reshape(-1, 4),
        labels=np.array([label for _, label in boxes], np.int64),
        difficult=np.array(difficult or [False] * len(boxes), bool),
        crowd=np.zeros(len(boxes), bool),
    )


def detections(boxes: Scored) -> Detections:
    boxes = sorted(boxes, key=lambda each: -each[2])
    return Detections(
        boxes=np.array([box for box, _, _ in boxes], np.float32).reshape(-1, 4),
        scores=np.array([score for _, _, score in boxes], np.float32),
        labels=np.array([label for _, label, _ in boxes], np.int64),
        classes=("car", "bus"),
        image_size=(100, 100),
    )


def errors(truth: Boxes, found: Scored, difficult: Sequence[bool] = ()) -> ErrorsByCause:
    return errors_by_cause([labelled(truth, difficult)], [detections(found)], ("car", "bus"))


def assert_errors(found: ErrorsByCause, ap50: float, **gains: float) -> None:
    assert found.ap50 == pytest.approx(ap50)
    assert found.gains == pytest.approx({cause: gains.get(cause, 0.0) for cause in CAUSES})


def test_errors__classification() -> None:
    found = errors([(FIRST, CAR), (SECOND, BUS)], [(FIRST, CAR, 0.9), (SECOND, CAR, 0.8)])
    assert_errors(found, 0.5, classification=0.5)  # cars 1, buses 0; corrected, both 1
    assert {cause: number for cause, number in found.counts.items() if number} == {"classification": 1}


def test_errors__localisation() -> None:
    found = errors([(FIRST, CAR), (SECOND, CAR)], [(FIRST, CAR, 0.9), (BESIDE_SECOND, CAR, 0.8)])
    assert_errors(found, HALF, localisation=1 - HALF)
    assert found.counts["localisation"] == 1
    assert found.counts["missed"] == 0  # an error points at it


def test_errors__duplicate() -> None:
    found = errors([(FIRST, CAR), (SECOND, CAR)], [(FIRST, CAR, 0.9), (FIRST, CAR, 0.8), (SECOND, CAR, 0.7)])
    ap50 = HALF + (1 - HALF) * 2 / 3  # precision 1 up to one half, then two of three
    assert_errors(found, ap50, duplicate=1 - ap50)
    assert found.counts["duplicate"] == 1


def test_errors__background() -> None:
    found = errors([(FIRST, CAR), (SECOND, CAR)], [(FIRST, CAR, 0.9), (NOWHERE, CAR, 0.8), (SECOND, CAR, 0.7)])
    ap50 = HALF + (1 - HALF) * 2 / 3
    assert_errors(found, ap50, background=1 - ap50)
    empty = errors_by_cause(
        [labelled([]), labelled([(FIRST, CAR)])],
        [detections([(FIRST, CAR, 0.9)]), detections([(FIRST, CAR, 0.8)])],
        ("car", "bus"),
    )
    assert_errors(empty, 0.5, background=0.5)  # a detection on an image without objects


def test_errors__both_class_and_place() -> None:
    found = errors([(FIRST, CAR), (SECOND, BUS)], [(BESIDE_FIRST, BUS, 0.9), (SECOND, BUS, 0.8)])
    # Buses: one of two right, 0.5; cars: 0. Without the error buses have 1; without the car, which is missed, no cars.
    assert_errors(found, 0.25, both=0.25, missed=0.25)
    assert (found.counts["both"], found.counts["missed"]) == (1, 1)


def test_errors__missed() -> None:
    found = errors([(FIRST, CAR), (SECOND, CAR)], [(FIRST, CAR, 0.9)])
    assert_errors(found, HALF, missed=1 - HALF)
    assert found.counts["missed"] == 1


def test_errors__of_two_that_point_at_an_object_the_better_is_corrected() -> None:
    again = (25.0, 0.0, 35.0, 10.0)  # IoU 5 / 15
    found = errors([(SECOND, CAR)], [(again, CAR, 0.9), (BESIDE_SECOND, CAR, 0.8)])
    assert_errors(found, 0.0, localisation=1.0)
    assert found.counts["localisation"] == 2
    taken = errors([(SECOND, CAR)], [(BESIDE_SECOND, CAR, 0.9), (SECOND, CAR, 0.8)])
    assert_errors(taken, 0.5, localisation=0.5)  # of an object that is found: taken out


def test_errors__difficult_objects_are_neither_right_nor_wrong() -> None:
    found = errors([(FIRST, CAR), (SECOND, CAR)], [(FIRST, CAR, 0.9), (SECOND, CAR, 0.95)], [False, True])
    assert_errors(found, 1.0)
    assert not any(found.counts.values())


def test_errors__nothing_labelled_is_undefined() -> None:
    found = errors([], [(FIRST, CAR, 0.9)])
    assert found.ap50 is None
    assert set(found.gains.values()) == {None}


def test_errors__counted_classes_alone() -> None:
    truth, found = [labelled([(FIRST, CAR), (SECOND, BUS)])], [detections([(FIRST, CAR, 0.9)])]
    assert errors_by_cause(truth, found, ("car", "bus"), counted=("car",)).ap50 == 1
    assert errors_by_cause(truth, found, ("car", "bus"), counted=("bus",)).counts["missed"] == 1


def test_errors__average_precision_is_that_of_coco() -> None:
    generator = np.random.default_rng(3)
    truths, found = [], []
    for _ in range(12):
        corners = generator.integers(0, 60, (6, 2))
        boxes = [(*corner, *(corner + generator.integers(10, 30, 2))) for corner in corners]
        objects = [(box, int(generator.integers(2))) for box in boxes]
        truths.append(labelled(objects, (generator.random(6) < 0.2).tolist()))
        moved = [tuple(np.array(box) + generator.integers(-5, 6, 4)) for box in boxes + boxes[:2]]
        found.append(detections([(box, int(generator.integers(2)), generator.random()) for box in moved]))
    classes = ("car", "bus")
    result = errors_by_cause(truths, found, classes)
    assert result.ap50 == pytest.approx(coco_ap50(truths, found, classes).mean)
    assert all(result.counts.values())
