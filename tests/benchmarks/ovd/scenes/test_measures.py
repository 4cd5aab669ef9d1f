"""Measures of the open-vocabulary study: equal to COCO's without weights, and worked out by hand with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.ovd.scenes.check import colour_check
from benchmarks.ovd.scenes.measures import (
    Matched,
    candidate_rates,
    match_class,
    read_instances,
    resampled_ap50,
    weighted_ap,
)
from pipelines.ovd.pseudo_labels.label_file import Candidate, PseudoLabels
from tests.vision_core.detection.pools import cells_pool
from vision_core.detection.average_precision import coco_ap50
from vision_core.detection.datasets.records import DetectionDataset, ImageRecord
from vision_core.detection.scenes import SceneSettings, write_scenes
from vision_core.results import Detections

CLASSES = ("a", "b")


def record(number: int, boxes: NDArray[np.float32], labels: NDArray[np.int64], crowd: NDArray[np.bool_]) -> ImageRecord:
    return ImageRecord(
        image_id=str(number),
        path=Path(f"{number}.png"),
        boxes=boxes,
        labels=labels,
        difficult=np.zeros(len(labels), np.bool_),
        crowd=crowd,
        size=(64, 64),
    )


def random_boxes(count: int, draw: np.random.Generator) -> NDArray[np.float32]:
    corners = draw.uniform(0, 44, (count, 2))
    return np.concatenate([corners, corners + draw.uniform(8, 20, (count, 2))], axis=1).astype(np.float32)


def random_scenes(seed: int) -> tuple[list[ImageRecord], list[Detections]]:
    """Scenes with crowds, and detections of which half lie near an object."""
    draw = np.random.default_rng(seed)
    records, found = [], []
    for number in range(12):
        boxes = random_boxes(6, draw)
        truth = record(number, boxes, draw.integers(0, 2, 6), draw.random(6) < 0.2)
        near = boxes + draw.normal(0, 2, boxes.shape)
        guesses = np.concatenate([near, random_boxes(4, draw)]).astype(np.float32)
        labels = np.concatenate([truth.labels, draw.integers(0, 2, 4)])
        order = draw.permutation(len(guesses))
        records.append(truth)
        found.append(
            Detections(
                boxes=guesses[order],
                scores=np.sort(draw.random(len(order)))[::-1].astype(np.float32),
                labels=labels[order],
                classes=CLASSES,
                image_size=(64, 64),
            )
        )
    return records, found


@pytest.mark.parametrize("seed", range(4))
def test_weighted_ap__with_weights_of_one_is_that_of_coco(seed: int) -> None:
    records, found = random_scenes(seed)
    expected = coco_ap50(records, found, CLASSES).per_class
    for label, name in enumerate(CLASSES):
        matched = match_class(records, found, label, [[0] * len(each.labels) for each in records])
        assert weighted_ap(matched, np.ones(12), np.ones(1)) == pytest.approx(
            expected[name], abs=5e-4
        )  # float32 recalls


@pytest.mark.parametrize("seed", range(2))
def test_weighted_ap__a_scene_of_weight_two_is_one_that_is_there_twice(seed: int) -> None:
    records, found = random_scenes(seed)
    matched = match_class(records, found, 0, [[0] * len(each.labels) for each in records])
    weights = np.array([2.0, 0.0, *[1.0] * 10])
    twice = [0, 0, *range(2, 12)]
    expected = coco_ap50([records[place] for place in twice], [found[place] for place in twice], CLASSES)
    assert weighted_ap(matched, weights, np.ones(1)) == pytest.approx(expected.per_class["a"], abs=0.02)  # ties


def test_weighted_ap__by_hand() -> None:
    # A hit of instance 0, a miss, a hit of instance 1: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    matched = Matched(
        scenes=np.array([0, 0, 1]),
        found=np.array([0, -1, 1]),
        truth_scenes=np.array([0, 1]),
        instances=np.array([0, 1]),
    )
    assert weighted_ap(matched, np.ones(2), np.ones(2)) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    # Instance 0 counts three times, instance 1 once: precision 1, 3/4, 4/5 at recall 3/4, 3/4, 1.
    assert weighted_ap(matched, np.ones(2), np.array([3.0, 1.0])) == pytest.approx((76 * 1 + 25 * 4 / 5) / 101)
    assert weighted_ap(matched, np.zeros(2), np.ones(2)) is None


def test_resamples__the_same_for_two_models_and_about_the_score() -> None:
    records, found = random_scenes(0)
    instances = [[0] * len(each.labels) for each in records]
    matched = {name: match_class(records, found, label, instances) for label, name in enumerate(CLASSES)}
    groups = {"novel": ("b",), "base": ("a",)}
    first, again = (resampled_ap50(matched, groups, (12, 1), "scenes", 40) for _ in range(2))
    assert first == again
    score = 100 * (coco_ap50(records, found, CLASSES).per_class["b"] or 0)
    assert min(first["novel"]) < score < max(first["novel"])


def test_candidates__right_class_and_each_object_once() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], np.float32)
    truth = DetectionDataset(
        name="train",
        classes=CLASSES,
        records=(record(1, boxes, np.array([1, 1, 0]), np.zeros(3, np.bool_)),),
        has_labels=True,
    )
    made = Candidate(
        boxes=np.array([[0, 0, 10, 9], [0, 0, 9, 10], [40, 40, 50, 50]], np.float32),  # the second finds nothing new
        labels=np.array([1, 1, 1]),
        clip_scores=np.ones(3, np.float32),
        confidence=np.array([0.9, 0.8, 0.7], np.float32),
    )
    labels = PseudoLabels(by_image={"1": made}, embeddings=torch.eye(2))
    rates = candidate_rates(labels, truth, ("b",))
    assert rates == {"candidates": 3.0, "precision": pytest.approx(100 / 3), "recall": pytest.approx(50)}
    none = PseudoLabels(by_image={}, embeddings=torch.eye(2))
    assert candidate_rates(none, truth, ("b",)) == {"candidates": 0.0, "precision": None, "recall": 0.0}


def test_instances__are_those_of_the_boxes(tmp_path: Path) -> None:
    written = write_scenes(tmp_path, "val", cells_pool(), SceneSettings(), count=3)
    rows, count = read_instances(tmp_path / "val.json")
    assert [len(row) for row in rows] == [len(each.labels) for each in written.records]
    assert count == len({number for row in rows for number in row}) <= 12


@pytest.mark.slow
def test_colour_check__finds_what_colour_gives_away(tmp_path: Path) -> None:
    """Objects in full colour on a ground of grey are found, so that a low score of the check means something."""
    pool = cells_pool()
    grey = np.full((300, 300, 3), 128, np.uint8)
    given_away = type(pool)(
        classes=("disc",),
        grounds=(grey,),
        cut_outs=tuple(
            type(each)(
                name=each.name,
                label=0,
                picture=np.full_like(each.picture, (200, 30, 30)),
                coverage=each.coverage,
            )
            for each in pool.of_label(0)
        ),
    )
    settings = SceneSettings(clutter=(0, 0), shared=0.0, off=0.0)
    lists = [write_scenes(tmp_path, name, given_away, settings, count=10) for name in ("train", "test")]
    assert colour_check(*lists) > 30
