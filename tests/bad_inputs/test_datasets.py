from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tests.bad_inputs import museum
from tests.vision_core.detection.synthetic import make_coco
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError

Make = Callable[[Path], Path]
Format = Literal["voc", "coco", "yolo", "cityscapes"]

REFUSED: list[tuple[Make, Format, str]] = [
    (museum.b10_truncated_index, "coco", r"train\.json' breaks off: .* at byte '\d+' of \d+"),
    (museum.b11_oversized_index, "coco", r"would take about '8000' GB of memory"),
    (museum.b12_no_images, "coco", "has no list 'images'"),
    (museum.b12_no_categories, "coco", "has no list 'categories'"),
    (museum.b14_missing_image, "coco", r"'1' of '4' listed images are missing: 001\.png"),
    (museum.b16_repeated_image_id, "coco", "image id '0' occurs more than once"),
    (museum.b16_repeated_annotation_id, "coco", "annotation id '0' occurs more than once"),
    (museum.b17_flat_box, "coco", r"annotation 0': box '\(5, 5, 5, 15\)' has no area: it is '0' px wide"),
    (museum.b18_box_far_out, "coco", "leaves the image of 96 x 64 px by '30' px"),
    (museum.b18_box_not_a_number, "coco", "is not made of finite numbers"),
    (museum.b20_unknown_category, "coco", "has category id '2'; there are 1, 3"),
    (museum.b23_malformed_xml, "voc", r"train_001\.xml' is not well-formed XML"),
    (museum.b23_entity_bomb, "voc", "carries a DOCTYPE"),
    (museum.b23_external_dtd, "voc", "carries a DOCTYPE"),
    (museum.b24_reversed_corners, "voc", r"box '\(49, 4, 10, 30\)' has no area: it is '-39' px wide"),
    (museum.b27_pixels, "yolo", r"001\.txt' line 1: has '40 20 30 25', not all within 0 and 1"),
    (museum.b27_class_beyond, "yolo", r"001\.txt' line 2: has the class '2'; 'data\.yaml' names 2"),
    (museum.b27_six_columns, "yolo", r"001\.txt' line 1: has 6 numbers, as detections with a score"),
    (museum.b27_commas, "yolo", r"001\.txt' line 1: .* has commas"),
    (museum.b29_labels_of_test, "cityscapes", "holds no object, as the labels of 'test'"),
]
NOTED: list[tuple[Make, Format, str]] = [
    (museum.b13_orphan_annotation, "coco", "annotations of images that are not listed, left out: 1 (0)"),
    (museum.b15_unlisted_image, "coco", "images on disk that the index does not list, not used: 1 (stranger.png)"),
    (museum.b18_box_one_pixel_out, "coco", "boxes cut at the image's edge (by one pixel at most): 1 (annotation 0)"),
    (
        museum.b24_counted_from_zero,
        "voc",
        "boxes with xmin or ymin 0 (does the file count from 0? 1 is subtracted): 1 (train_001)",
    ),
]


def _read(root: Path, kind: Format, on_bad_box: Literal["refuse", "drop"] = "refuse") -> DetectionDataset:
    return read_dataset(DetectionData(root=root, format=kind, on_bad_box=on_bad_box), "train", with_labels=True)


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_read_dataset__refused(make: Make, kind: Format, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        _read(make(tmp_path / "data"), kind)


@pytest.mark.parametrize(("make", "kind", "note"), NOTED, ids=lambda value: getattr(value, "__name__", ""))
def test_read_dataset__noted(make: Make, kind: Format, note: str, tmp_path: Path) -> None:
    dataset = _read(make(tmp_path / "data"), kind)
    assert note in dataset.notes
    assert len(dataset) == 4


def test_read_dataset__yolo_labels_of_windows_and_missing_ones(tmp_path: Path) -> None:
    assert len(_read(museum.b27_carriage_returns(tmp_path / "windows"), "yolo").records[1].boxes) == 2
    dataset = _read(museum.b28_no_label_file(tmp_path / "missing"), "yolo")
    assert {record.image_id: len(record.boxes) for record in dataset.records} == {"000": 1, "001": 0, "003": 1}
    assert dataset.left_out == {"images without labels": 1}


def test_read_dataset__groups_alone_are_crowd_regions(tmp_path: Path) -> None:
    records = _read(museum.b29_groups_alone(tmp_path / "city"), "cityscapes").records
    assert {tuple(record.crowd.tolist()) for record in records} == {(True,)}


def test_read_dataset__a_missing_image_is_left_out_on_request(tmp_path: Path) -> None:
    root = museum.b14_missing_image(tmp_path / "data")
    dataset = read_dataset(DetectionData(root=root, format="coco", on_missing="skip"), "train", with_labels=True)
    assert "IMAGES MISSING: '1' of '4' listed images are missing: 001.png. They are left out" in dataset.notes
    assert (len(dataset), dataset.left_out) == (3, {"images missing": 1})


@pytest.mark.parametrize("make", [museum.b17_flat_box, museum.b18_box_far_out, museum.b18_box_not_a_number])
def test_read_dataset__bad_boxes_are_dropped_on_request(make: Make, tmp_path: Path) -> None:
    whole = _read(make_coco(tmp_path / "whole"), "coco")
    dataset = _read(make(tmp_path / "data"), "coco", on_bad_box="drop")
    assert sum(map(len, (record.boxes for record in dataset.records))) == _num_boxes(whole) - 1
    assert any(note.startswith("boxes dropped") for note in dataset.notes)


def test_read_dataset__crowd_and_ignore_become_crowd_regions(tmp_path: Path) -> None:
    dataset = _read(museum.b22_crowd(tmp_path / "data"), "coco")
    crowd = np.concatenate([record.crowd for record in dataset.records])
    assert crowd.sum() == 2


def test_read_dataset__fractions_are_kept(tmp_path: Path) -> None:
    dataset = _read(museum.b24_fractions(tmp_path / "data"), "voc")
    np.testing.assert_array_equal(dataset.records[1].boxes, [[4.5, 4.25, 10, 30.5]])


def test_read_dataset__counted_from_zero_is_cut_at_the_edge(tmp_path: Path) -> None:
    dataset = _read(museum.b24_counted_from_zero(tmp_path / "data"), "voc")
    np.testing.assert_array_equal(dataset.records[1].boxes, [[0, 4, 10, 30]])


def test_read_dataset__no_boxes_at_all_is_legal(tmp_path: Path) -> None:
    dataset = _read(museum.b31_no_boxes(tmp_path / "data"), "voc")
    assert _num_boxes(dataset) == 0
    assert len(dataset) == 4


def _num_boxes(dataset: DetectionDataset) -> int:
    return sum(len(record.boxes) for record in dataset.records)
