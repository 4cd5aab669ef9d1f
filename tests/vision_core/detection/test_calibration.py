"""Calibration of scores against cases that are counted by hand."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from vision_core.bundles.card import Card, TrainedOn
from vision_core.detection.calibration import DetectorCalibration, calibrate, read_calibration
from vision_core.errors import CheckpointError
from vision_core.results import Detections

CLASSES = ("tree", "car")


@dataclass(frozen=True)
class Truth:
    """Squares of 10 px at ``lefts``."""

    lefts: tuple[int, ...]
    labels_: tuple[int, ...]
    hard: tuple[bool, ...] = ()
    boxes: NDArray[np.float32] = field(init=False)
    labels: NDArray[np.int64] = field(init=False)
    difficult: NDArray[np.bool_] = field(init=False)
    crowd: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.lefts)
        object.__setattr__(self, "boxes", squares(self.lefts))
        object.__setattr__(self, "labels", np.array(self.labels_, np.int64))
        object.__setattr__(self, "difficult", np.array(self.hard or (False,) * count, bool))
        object.__setattr__(self, "crowd", np.zeros(count, bool))


def squares(lefts: tuple[int, ...]) -> NDArray[np.float32]:
    return np.array([[left, 0, left + 10, 10] for left in lefts], np.float32).reshape(-1, 4)


def found(*entries: tuple[int, float, int], classes: tuple[str, ...] = CLASSES) -> Detections:
    """Detections ``(left, score, label)``."""
    return Detections(
        boxes=squares(tuple(left for left, _, _ in entries)),
        scores=np.array([score for _, score, _ in entries], np.float32),
        labels=np.array([label for _, _, label in entries], np.int64),
        classes=classes,
        image_size=(100, 1000),
        model="m",
    )


def made(truths: list[Truth], detections: list[Detections]) -> DetectorCalibration:
    return calibrate(truths, detections, CLASSES, data="list 'val'", manifest="ab")


def test_calibrate__counted_by_hand() -> None:
    """Four trees, one of them hard; of five detections that count, in order: right, right, wrong, right, wrong."""
    truths = [Truth((0, 100, 200), (0, 0, 0), (False, False, True)), Truth((0,), (0,))]
    scores = [
        found((0, 0.95, 0), (100, 0.75, 0), (200, 0.7, 0), (500, 0.65, 0)),
        found((0, 0.6, 0), (500, 0.15, 0)),
    ]
    tree = made(truths, scores).per_class["tree"]
    assert tree.objects == 3
    assert tree.detections == (0, 1, 0, 0, 0, 0, 2, 1, 0, 1)  # the match with the hard object is none of them
    assert tree.precision == (None, 0.0, None, None, None, None, 0.5, 1.0, None, 1.0)
    # From 0.95: F1 2/4; 0.75: 4/5; 0.65: 4/6; 0.6: 6/7; 0.15: 6/8.
    assert tree.operating_score == pytest.approx(0.6)
    assert tree.f1 == pytest.approx(6 / 7)
    assert tree.sure_score == pytest.approx(0.75)  # two of two; from 0.6 on three of four


def test_calibrate__classes_apart_and_together() -> None:
    truths = [Truth((0, 100), (0, 1))]
    calibrated = made(truths, [found((0, 0.9, 0), (100, 0.8, 1), (0, 0.7, 1))])
    tree, car = calibrated.per_class.values()
    assert tree.operating_score == pytest.approx(0.9)
    assert car.operating_score == pytest.approx(0.8)
    assert calibrated.all.objects == 2
    assert calibrated.all.f1 == 1
    assert calibrated.all.operating_score == pytest.approx(0.8)
    assert calibrated.images == 1
    assert calibrated.bins[0] == 0
    assert calibrated.bins[-1] == 1


def test_calibrate__equal_scores_are_one_threshold_and_names_decide() -> None:
    truths = [Truth((0,), (0,)), Truth((0,), (0,))]
    turned = ("car", "tree")
    detections = [found((0, 0.5, 1), (500, 0.5, 1), classes=turned), found((0, 0.5, 1), classes=turned)]
    tree = made(truths, detections).per_class["tree"]
    assert tree.f1 == pytest.approx(4 / 5)  # never two right ones alone
    assert tree.sure_score is None
    assert tree.precision[5] == pytest.approx(2 / 3)


def test_calibrate__the_score_itself_not_rounded() -> None:
    """A threshold of 0.512 would lose the detection whose score is 0.5118."""
    tree = made([Truth((0,), (0,))], [found((0, 0.5118, 0))]).per_class["tree"]
    assert tree.operating_score == np.float32(0.5118)
    assert tree.detections[5] == 1


@pytest.mark.parametrize("detections", [(), ((500, 0.9, 0),)])
def test_calibrate__nothing_right_is_no_score(detections: tuple[tuple[int, float, int], ...]) -> None:
    for truth in (Truth((0,), (0,)), Truth((), ())):
        tree = made([truth], [found(*detections)]).per_class["tree"]
        assert (tree.operating_score, tree.f1, tree.sure_score) == (None, None, None)
        assert sum(tree.detections) == len(detections)


def test_read_calibration__comes_back_from_a_card() -> None:
    described = Card(
        task="sfod",
        method="source",
        config={},
        architecture={},
        preprocessing={},
        classes=CLASSES,
        trained_on=TrainedOn(description="made", synthetic=True),
    )
    assert read_calibration(described) is None
    calibrated = made([Truth((0,), (0,))], [found((0, 0.9, 0))])
    kept = described.model_copy(update={"calibration": calibrated.model_dump(mode="json")})
    assert read_calibration(kept) == calibrated
    with pytest.raises(CheckpointError, match=r"card\.json, calibration\.data: Field required"):
        read_calibration(described.model_copy(update={"calibration": {"temperature": 1.0}}))
