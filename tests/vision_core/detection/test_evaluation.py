"""Scores and comparison pictures from detections given by hand."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.vision_core.detection.synthetic import SHAPES, make_voc
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.datasets.records import ImageRecord
from vision_core.detection.evaluation import detect_all, draw_comparison, list_reader, score
from vision_core.detection.settings import DetectionData
from vision_core.errors import InputError
from vision_core.images.reading import read_image
from vision_core.results import Detections


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    root = make_voc(tmp_path_factory.mktemp("voc"), count=8)
    return read_dataset(DetectionData(root=root, classes=SHAPES), "test", with_labels=True)


def _truth(record: ImageRecord) -> Detections:
    return Detections(
        boxes=record.boxes,
        scores=np.full(len(record.boxes), 0.9, np.float32),
        labels=record.labels,
        classes=SHAPES,
        image_size=(64, 96),
        model="truth",
    )


def _nothing(record: ImageRecord) -> Detections:
    return _truth(dataclasses.replace(record, boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64)))


def test_score__the_truth_is_perfect_in_every_metric(dataset: DetectionDataset) -> None:
    row = score("truth", dataset, [_truth(record) for record in dataset.records])
    assert row.metrics == pytest.approx({"voc07_ap50": 1.0, "area_ap50": 1.0, "coco_ap": 1.0})
    assert (row.model, row.split, row.counts["images"]) == ("truth", dataset.name, 8)
    assert row.counts["boxes"] == sum(len(record.boxes) for record in dataset.records)


def test_score__nothing_found_is_zero(dataset: DetectionDataset) -> None:
    row = score("blind", dataset, [_nothing(record) for record in dataset.records])
    assert set(row.metrics.values()) == {0.0}


def test_score__a_class_without_boxes_does_not_dilute_the_mean(dataset: DetectionDataset) -> None:
    more = dataclasses.replace(dataset, classes=(*SHAPES, "background"))
    row = score("truth", more, [_truth(record) for record in dataset.records])
    assert row.metrics["voc07_ap50"] == pytest.approx(1.0)
    assert row.per_class["background.voc07_ap50"] is None


def test_score__named_classes_alone_count(dataset: DetectionDataset) -> None:
    found = [_truth(record) for record in dataset.records]
    discs_only = [
        dataclasses.replace(each, boxes=each.boxes[keep], scores=each.scores[keep], labels=each.labels[keep])
        for each in found
        for keep in [each.labels == 0]
    ]
    assert score("half", dataset, discs_only).metrics["voc07_ap50"] == pytest.approx(0.5)
    row = score("half", dataset, discs_only, classes=("disc",))
    assert row.metrics["voc07_ap50"] == pytest.approx(1.0)
    assert row.counts["boxes"] == sum(int((record.labels == 0).sum()) for record in dataset.records)


def test_score__no_boxes_at_all_is_undefined(dataset: DetectionDataset) -> None:
    """Row B31 of the bad inputs."""
    empty = [
        dataclasses.replace(record, boxes=record.boxes[:0], labels=record.labels[:0],
                            difficult=record.difficult[:0], crowd=record.crowd[:0])
        for record in dataset.records
    ]  # fmt: skip
    row = score("any", dataclasses.replace(dataset, records=tuple(empty)), [_truth(each) for each in dataset.records])
    assert set(row.metrics.values()) == {None}
    assert row.counts["boxes"] == 0


def test_detect_all__in_the_order_of_the_list(dataset: DetectionDataset) -> None:
    by_path = {record.path: _truth(record) for record in dataset.records}
    assert detect_all(by_path.__getitem__, dataset, "label") == list(by_path.values())


def test_list_reader__images_above_the_limit_of_the_list_are_refused(dataset: DetectionDataset) -> None:
    path = dataset.records[0].path
    np.testing.assert_array_equal(list_reader(DetectionData())(path)[0], read_image(path))
    with pytest.raises(InputError, match=r"0\.001 are allowed.*data\.max_megapixels"):
        list_reader(DetectionData(max_megapixels=0.001))(path)


def test_draw_comparison__six_evenly_spaced_pictures_side_by_side(dataset: DetectionDataset, tmp_path: Path) -> None:
    found = {
        "source": [_nothing(each) for each in dataset.records],
        "adapted": [_truth(each) for each in dataset.records],
    }
    draw_comparison(dataset, found, tmp_path)
    captions = json.loads((tmp_path / "captions.json").read_text())
    assert sorted(captions) == sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(captions) == 7
    assert list(captions)[:2] == ["precision_recall.png", "0000-test_000.png"]
    assert captions["0000-test_000.png"].startswith("test_000, left to right source: 0 above 0.5; adapted: ")
    left, right = np.split(read_image(tmp_path / "0000-test_000.png")[:, [*range(96), *range(104, 200)]], 2, axis=1)
    np.testing.assert_array_equal(left, read_image(dataset.records[0].path))
    assert (left != right).any()
