"""Scores by labels: weighted images against repeated ones, a corrected choice, boxes that are still needed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.sfod.verdict.by_labels import ANYTHING, Design, Labelled, gain_by_labels, mean_precision
from pipelines.sfod.verdict.comparing import Compared
from pipelines.sfod.verdict.page import labelled_words
from vision_core.detection.analysis.changes import find_changes
from vision_core.detection.average_precision import Matches, voc07_ap50
from vision_core.detection.datasets.records import ImageRecord
from vision_core.results import Detections

CLASSES = ("disc",)
LABELLED = Labelled(before=0.3, after=0.34, interval=(-0.04, 0.12), images=20, boxes=50, of_images=200, of_boxes=420.0)


def record(name: str, count: int) -> ImageRecord:
    """Objects in a row, ten pixels each."""
    left = 20.0 * np.arange(count, dtype=np.float32)
    return ImageRecord(
        image_id=name,
        path=Path(f"{name}.png"),
        boxes=np.stack([left, np.zeros(count), left + 10, np.full(count, 10)], axis=1).astype(np.float32),
        labels=np.zeros(count, np.int64),
        difficult=np.zeros(count, bool),
        crowd=np.zeros(count, bool),
        size=(1000, 1000),
    )


def found(truth: ImageRecord, hits: NDArray[np.bool_], seed: int) -> Detections:
    """A box on each hit object and one beside all objects, of any score."""
    generator = np.random.default_rng(seed)
    boxes = np.concatenate([truth.boxes[hits], [[900, 900, 910, 910]]]).astype(np.float32)
    boxes = generator.permutation(boxes)
    return Detections(
        boxes=boxes,
        scores=np.sort(generator.uniform(0.1, 0.9, len(boxes)))[::-1].astype(np.float32),
        labels=np.zeros(len(boxes), np.int64),
        classes=CLASSES,
        image_size=(1000, 1000),
        model="m",
    )


def population(count: int) -> tuple[list[Compared], list[ImageRecord]]:
    """Images of which a few gain much, most nothing, some lose; those that change are known."""
    generator = np.random.default_rng(1)
    images, truths = [], []
    for place in range(count):
        truth = record(f"{place:03d}", int(generator.integers(1, 6)))
        before = generator.random(len(truth.boxes)) < 0.5
        change = place % 6
        after = np.ones_like(before) if change == 0 else before & False if change == 1 and place % 12 == 1 else before
        sides = found(truth, before, place), found(truth, after, place)
        changes = find_changes(*sides)
        images.append(
            Compared(
                path=truth.path,
                before_all=sides[0],
                after_all=sides[1],
                before=sides[0],
                after=sides[1],
                changes=changes,
                difference=float(len(changes.gained) + len(changes.lost)),
            )
        )
        truths.append(truth)
    return images, truths


def test_gain__of_all_images_is_the_difference_of_scores() -> None:
    images, truths = population(12)
    labelled = gain_by_labels(images, truths, CLASSES)
    assert labelled is not None
    for name, value in (("before_all", labelled.before), ("after_all", labelled.after)):
        assert value == pytest.approx(
            voc07_ap50(truths, [getattr(each, name) for each in images], CLASSES).mean, abs=1e-12
        )
    assert (labelled.images, labelled.of_images) == (12, 12)
    assert labelled.boxes == labelled.of_boxes == sum(len(each.boxes) for each in truths)
    assert labelled.interval[0] < labelled.after - labelled.before < labelled.interval[1]


def test_mean_precision__a_weight_is_a_repetition() -> None:
    generator = np.random.default_rng(0)
    matches = [
        Matches(
            num_truths=int(generator.integers(1, 4)),
            scores=np.sort(generator.random(3))[::-1],
            outcomes=generator.choice([-1, 1], 3),
        )
        for _ in range(4)
    ]
    times = np.array([3, 1, 0, 2])
    repeated = [each for each, count in zip(matches, times, strict=True) for _ in range(count)]
    weighted = mean_precision([matches], np.array([times, 10 * times, [0, 0, 0, 0]], np.float64))
    assert weighted[:2] == pytest.approx(mean_precision([repeated], np.ones((1, 6)))[0].repeat(2), abs=1e-12)
    assert np.isnan(weighted[2])


def test_gain__of_chosen_images_is_that_of_all() -> None:
    """The image that changed most would tell of a large gain; weights make the estimate that of the whole folder."""
    images, truths = population(90)
    whole = gain_by_labels(images, truths, CLASSES)
    assert whole is not None
    order = np.argsort([-each.difference for each in images], kind="stable")
    most, rest = order[:10], order[10:]
    gains, held, boxes = [], [], []
    for draw in range(30):
        drawn = np.random.default_rng(draw).permutation(rest)[:20]
        places = np.concatenate([most, drawn])
        design = Design(kinds=(np.arange(30) >= 10).astype(np.int64), sizes=(10, 80))
        labelled = gain_by_labels([images[at] for at in places], [truths[at] for at in places], CLASSES, design)
        assert labelled is not None
        gains.append(labelled.after - labelled.before)
        held.append(labelled.interval[0] <= whole.after - whole.before <= labelled.interval[1])
        boxes.append(labelled.of_boxes)
        assert (labelled.images, labelled.of_images) == (30, 90)
    true = whole.after - whole.before
    naive = gain_by_labels([images[at] for at in most], [truths[at] for at in most], CLASSES)
    assert naive is not None
    assert abs(naive.after - naive.before - true) > 0.1  # what the choice would have one believe
    assert abs(np.mean(gains) - true) < abs(naive.after - naive.before - true) / 5  # AP has steps: nearly, not exactly
    assert np.mean(boxes) == pytest.approx(whole.boxes, abs=2 * np.std(boxes) / np.sqrt(30))  # a sum has none
    assert sum(held) >= 27


def test_design__weights_and_draws() -> None:
    design = Design(kinds=np.array([0, 0, 1, 1, 1]), sizes=(2, 12))
    assert design.weights.tolist() == [1, 1, 4, 4, 4]
    assert design.whole_weights().tolist() == [[6, 6, 24, 24, 24]]
    drawn = design.draw(0)
    assert drawn is not None
    scale = 1 * 2  # one less than the images of each kind
    assert set(drawn[:, :2].sum(axis=1).tolist()) == {2 * scale}  # as many images as the kind stands for
    assert set(drawn[:, 2:].sum(axis=1).tolist()) == {12 * scale}
    assert (drawn == np.rint(drawn)).all()


def test_gain__one_image_of_a_kind_says_nothing() -> None:
    images, truths = population(3)
    labelled = gain_by_labels(images, truths, CLASSES, Design(kinds=np.array([0, 0, 1]), sizes=(2, 10)))
    assert labelled is not None
    assert labelled.interval == ANYTHING
    assert (labelled.kind, labelled.boxes_needed) == ("unclear", None)
    assert "label at least two of each kind" in labelled_words(labelled)


def test_gain__no_object_is_no_score() -> None:
    images, _ = population(3)
    assert gain_by_labels(images, [record(str(place), 0) for place in range(3)], CLASSES) is None


def test_boxes_needed__the_interval_shrinks_with_the_root_of_the_boxes() -> None:
    assert LABELLED.boxes_needed == 200  # half of it is twice the gain: four times as many
    assert "About 200 labelled boxes would settle a gain as large." in labelled_words(LABELLED)
    assert "They stand for 200 images, which hold about 420." in labelled_words(LABELLED)
    assert replace(LABELLED, interval=(0.01, 0.07)).boxes_needed is None  # settled
    tiny = replace(LABELLED, after=0.3001)
    assert tiny.boxes_needed is None
    assert "too small to be settled" in labelled_words(tiny)
