from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.evaluation.pascal_voc_evaluation import voc_eval
from numpy.typing import NDArray

from vision_core.detection import average_precision
from vision_core.detection.average_precision import (
    AveragePrecision,
    GroundTruth,
    all_metrics,
    area_ap50,
    area_under_envelope,
    coco_ap,
    coco_ap50,
    eleven_points,
    voc07_ap50,
)
from vision_core.results import Detections

Metric = Callable[[Sequence[GroundTruth], Sequence[Detections], tuple[str, ...]], AveragePrecision]
CLASSES = ("car", "bus")
FROM_ONE = np.array([1, 1, 0, 0], dtype=np.float32)
BOX = (10.0, 10, 49, 49)


@dataclass(frozen=True, kw_only=True)
class Labelled:
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]


def truth(*boxes: tuple[float, ...], label: int = 0, difficult: bool = False, crowd: bool = False) -> Labelled:
    count = len(boxes)
    return Labelled(
        boxes=np.array(boxes, dtype=np.float32).reshape(count, 4),
        labels=np.full(count, label),
        difficult=np.full(count, difficult),
        crowd=np.full(count, crowd),
    )


def found(
    *boxes: tuple[float, ...], scores: tuple[float, ...] = (), classes: tuple[str, ...] = CLASSES, label: int = 0
) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=np.array(boxes, dtype=np.float32).reshape(count, 4),
        scores=np.array(scores or (0.9,) * count, dtype=np.float32),
        labels=np.full(count, label),
        classes=classes,
        image_size=(200, 200),
    )


def test_curves__check_8_9_of_the_specification() -> None:
    true = np.cumsum([1, 0, 1, 1, 0])
    recall, precision = true / 4, true / np.arange(1, 6)
    assert eleven_points(recall, precision) == pytest.approx(0.613636, abs=1e-6)
    assert area_under_envelope(recall, precision) == pytest.approx(0.625)


def test_voc07__ranked_hits_give_8_9() -> None:
    """Four objects; by score a hit, a miss, two hits, a miss."""
    places = [(x, 10.0, x + 39, 49) for x in (10.0, 60, 110, 160)]
    miss = (10.0, 100, 49, 139)
    given = found(places[0], miss, places[1], places[2], miss, scores=(0.9, 0.8, 0.7, 0.6, 0.5))
    result = voc07_ap50([truth(*places)], [given], CLASSES)
    assert result.per_class["car"] == pytest.approx(0.613636, abs=1e-6)
    assert area_ap50([truth(*places)], [given], CLASSES).mean == pytest.approx(0.625)
    assert result.truths == {"car": 4, "bus": 0}
    assert result.detections == {"car": 5, "bus": 0}


@pytest.mark.parametrize("metric", [voc07_ap50, area_ap50, coco_ap])
def test_mean__class_without_objects_takes_no_part(metric: Metric) -> None:
    result = metric([truth(BOX)], [found(BOX)], CLASSES)
    assert result.mean == pytest.approx(1.0)
    assert result.per_class["bus"] is None


@pytest.mark.parametrize("metric", [voc07_ap50, area_ap50, coco_ap])
def test_mean__no_objects_at_all_is_none_not_zero(metric: Metric) -> None:
    """Row B31 of the bad inputs."""
    assert metric([truth()], [found(BOX)], CLASSES).mean is None


@pytest.mark.parametrize("metric", [voc07_ap50, area_ap50, coco_ap])
def test_nothing_found__zero(metric: Metric) -> None:
    assert metric([truth(BOX)], [found()], CLASSES).mean == 0


@pytest.mark.parametrize("metric", [voc07_ap50, area_ap50, coco_ap])
def test_detector_classes__matched_by_name(metric: Metric) -> None:
    """A detector of three classes, in another order, scored on two."""
    given = found(BOX, classes=("tree", "bus", "car"), label=2)
    result = metric([truth(BOX)], [given], CLASSES)
    assert result.per_class["car"] == pytest.approx(1.0)


def test_voc07__second_hit_on_a_box_is_a_miss() -> None:
    given = found(BOX, BOX, (60, 10, 99, 49), scores=(0.9, 0.8, 0.7))
    result = voc07_ap50([truth(BOX, (60.0, 10, 99, 49))], [given], CLASSES)
    assert result.mean == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_voc07__difficult_is_neither_hit_nor_miss(flag: str) -> None:
    images = [truth(BOX, **{flag: True}), truth(BOX)]
    result = voc07_ap50(images, [found(BOX, BOX, scores=(0.9, 0.9)), found(BOX, scores=(0.5,))], CLASSES)
    assert result.mean == pytest.approx(1.0)
    assert result.truths["car"] == 1


def test_voc07__overlap_counts_a_pixel_more_and_must_exceed_a_half() -> None:
    """Ten pixels (counted 0 to 9 in the file) against the five that overlap: exactly one half, a miss."""
    wanted = truth((0.0, 0, 10, 10))
    assert voc07_ap50([wanted], [found((0, 0, 10, 5))], CLASSES).mean == 0
    assert voc07_ap50([wanted], [found((0, 0, 10, 5.1))], CLASSES).mean == pytest.approx(1)


def test_voc07__corners_are_rounded_to_a_decimal() -> None:
    wanted = truth((0.0, 0, 10, 10))
    assert voc07_ap50([wanted], [found((0, 0, 10, 5.04))], CLASSES).mean == 0
    assert voc07_ap50([wanted], [found((0, 0, 10, 5.06))], CLASSES).mean == pytest.approx(1)


def test_voc07__scores_are_rounded_to_three_decimals() -> None:
    """0.9004 and 0.9001 tie, so the miss that stands first in its image stays first."""
    given = [found((100, 100, 140, 140), scores=(0.9001,)), found(BOX, scores=(0.9004,))]
    result = voc07_ap50([truth(), truth(BOX)], given, CLASSES)
    assert result.mean == pytest.approx(0.5)


def _random_case(seed: int) -> tuple[list[Labelled], list[Detections]]:
    rng = np.random.default_rng(seed)
    truths, given = [], []
    scores = iter(rng.permutation(999) / 1000)  # no ties: their order is not defined there
    for _ in range(12):
        corner = rng.integers(0, 100, (5, 2))
        boxes = np.concatenate([corner, corner + rng.integers(10, 60, (5, 2))], axis=1).astype(np.float32)
        truths.append(
            Labelled(
                boxes=boxes, labels=rng.integers(0, 2, 5), difficult=rng.random(5) < 0.2, crowd=np.zeros(5, dtype=bool)
            )
        )
        moved = np.concatenate([boxes, boxes]) + rng.normal(0, 5, (10, 4)).astype(np.float32)
        drawn = np.array(sorted((next(scores) for _ in range(10)), reverse=True), dtype=np.float32)
        given.append(
            Detections(boxes=moved, scores=drawn, labels=rng.integers(0, 2, 10), classes=CLASSES, image_size=(200, 200))
        )
    return truths, given


def _as_files(folder: Path, truths: list[Labelled], given: list[Detections]) -> None:
    lines: dict[str, list[str]] = {name: [] for name in CLASSES}
    for image, (labelled, each) in enumerate(zip(truths, given, strict=True)):
        objects = ""
        for box, label, difficult in zip(labelled.boxes, labelled.labels, labelled.difficult, strict=True):
            left, top, right, bottom = (int(edge) for edge in box + FROM_ONE)
            objects += (
                f"<object><name>{CLASSES[label]}</name><pose>x</pose><truncated>0</truncated>"
                f"<difficult>{int(difficult)}</difficult><bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
                f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
            )
        (folder / f"{image}.xml").write_text(f"<annotation>{objects}</annotation>")
        for box, score, label in zip(each.boxes, each.scores.tolist(), each.labels, strict=True):
            corners = " ".join(f"{edge:.1f}" for edge in box + FROM_ONE)
            lines[CLASSES[label]].append(f"{image} {score:.3f} {corners}")
    (folder / "set.txt").write_text("\n".join(str(image) for image in range(len(truths))))
    for name in CLASSES:
        (folder / f"{name}.txt").write_text("\n".join(lines[name]))


@pytest.mark.parametrize("seed", range(3))
def test_voc07__same_bits_as_the_script_of_the_benchmarks(tmp_path: Path, seed: int) -> None:
    truths, given = _random_case(seed)
    _as_files(tmp_path, truths, given)
    result = voc07_ap50(truths, given, CLASSES)
    area = area_ap50(truths, given, CLASSES)
    for name in CLASSES:
        files = str(tmp_path / "{}.txt"), str(tmp_path / "{}.xml"), str(tmp_path / "set.txt"), name
        assert result.per_class[name] == voc_eval(*files, use_07_metric=True)[2]
        assert area.per_class[name] == pytest.approx(voc_eval(*files, use_07_metric=False)[2], abs=1e-12)
    assert 0.1 < (result.mean or 0) < 0.95


def test_coco__overlap_of_0_62_counts_at_three_of_ten_thresholds() -> None:
    """62 of 100 units overlap: a hit at 0.50, 0.55 and 0.60."""
    result = coco_ap([truth((0.0, 0, 10, 10))], [found((0, 0, 10, 6.2))], CLASSES)
    assert result.mean == pytest.approx(0.3)


def test_coco50__the_first_overlap_alone() -> None:
    """The box that counts at 0.50, 0.55 and 0.60 counts wholly; half of the objects are half of 101 points."""
    assert coco_ap50([truth((0.0, 0, 10, 10))], [found((0, 0, 10, 6.2))], CLASSES).per_class["car"] == pytest.approx(1)
    two = [truth(BOX), truth(BOX)]
    half = coco_ap50(two, [found(BOX), found()], CLASSES)
    assert half.per_class == {"car": pytest.approx(51 / 101), "bus": None}
    assert half.mean == pytest.approx(51 / 101)


def test_coco__crowd_and_difficult_are_passed_over() -> None:
    images = [truth(BOX, crowd=True), truth(BOX, difficult=True), truth(BOX)]
    result = coco_ap(images, [found(BOX), found(BOX), found(BOX, scores=(0.5,))], CLASSES)
    assert result.mean == pytest.approx(1.0)
    assert result.truths["car"] == 1


def test_all_metrics__match_once_and_are_those_of_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    truths, given = (
        [truth(BOX), truth()],
        [found(BOX, (60.0, 10, 99, 49), scores=(0.95, 0.9)), found(BOX, scores=(0.5,))],
    )
    alone = {each.__name__: each(truths, given, CLASSES) for each in (voc07_ap50, area_ap50, coco_ap)}
    calls: list[str] = []
    plain = average_precision.match_image

    def counted(*arguments: Any) -> Any:  # noqa: ANN401
        calls.append(arguments[3])
        return plain(*arguments)

    monkeypatch.setattr(average_precision, "match_image", counted)
    assert all_metrics(truths, given, CLASSES) == alone
    assert len(calls) == len(truths) * len(CLASSES)
