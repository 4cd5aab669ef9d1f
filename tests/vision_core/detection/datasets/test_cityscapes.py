"""Cityscapes and Foggy Cityscapes, in their own tree and in the VOC folder of published code."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.vision_core.detection.datasets.published import make_city_voc, make_cityscapes
from vision_core.detection.datasets.cityscapes import CLASSES
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import ConfigError, DataError


def read(
    root: Path, split: str, kind: str = "cityscapes", *, with_labels: bool = True, **keys: object
) -> DetectionDataset:
    data = DetectionData.model_validate({"root": root, "format": kind, **keys})
    return read_dataset(data, split, with_labels=with_labels)


def test_read_cityscapes__a_polygon_is_a_box_and_a_group_a_crowd_region(tmp_path: Path) -> None:
    found = read(make_cityscapes(tmp_path), "train")
    record = found.records[0]
    assert found.classes == CLASSES
    assert record.image_id == "aachen_000000_000019_leftImg8bit"
    assert [found.classes[label] for label in record.labels] == ["car", "person"]
    assert record.boxes.tolist() == [[10, 5, 40, 30], [0, 8, 20, 32]]  # the second is cut at the edge: it began at -3
    assert record.crowd.tolist() == [False, True]
    assert record.size == (32, 64)


def test_read_cityscapes__one_class_and_the_labels_of_test(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path)
    found = read(root, "val", classes=("car",))
    assert found.records[0].labels.tolist() == [0]
    assert found.left_out == {"objects of other classes": 2}
    for path in root.glob("gtFine/val/*/*.json"):
        path.write_text(
            json.dumps({"imgHeight": 32, "imgWidth": 64, "objects": [_polygon("out of roi", [0, 0, 9, 9])]})
        )
    with pytest.raises(DataError, match="holds no object, as the labels of 'test'"):
        read(root, "val")
    next(root.glob("gtFine/train/*/*.json")).unlink()
    with pytest.raises(DataError, match="'1' of '2' images have no label file"):
        read(root, "train")


def test_read_foggy__the_fog_is_chosen(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path)
    found = read(root, "train", "foggy_cityscapes", fog_beta=0.02)
    assert [record.image_id[-4:] for record in found.records] == ["0.02", "0.02"]
    assert found.records[0].boxes.tolist() == read(root, "train").records[0].boxes.tolist()
    unlabelled = read(root, "train", "foggy_cityscapes", with_labels=False, fog_beta=0.005)
    assert [record.path.stem[-5:] for record in unlabelled.records] == ["0.005", "0.005"]
    assert unlabelled.classes == CLASSES
    with pytest.raises(ConfigError, match=r"data.fog_beta is for data.format=foggy_cityscapes"):
        read(root, "train", fog_beta=0.02)
    with pytest.raises(ConfigError, match=r"data.fog_beta is empty"):
        read(root, "train", "foggy_cityscapes")
    with pytest.raises(DataError, match=r"no image '\*_leftImg8bit_foggy_beta_0.3.png'"):
        read(root, "train", "foggy_cityscapes", fog_beta=0.3)


def test_read_foggy__the_voc_folder_of_published_code(tmp_path: Path) -> None:
    root = make_city_voc(tmp_path)
    found = read(root, "train_t", "foggy_cityscapes", fog_beta=0.02)
    assert found.classes == CLASSES
    assert [record.image_id for record in found.records] == ["aachen_000000_000019_leftImg8bit_foggy_beta_0.02"]
    assert "images of another fog than 0.02, left out: 1 of 2" in found.notes
    assert len(read(root, "train_t", "foggy_cityscapes", with_labels=False, fog_beta=0.01)) == 1
    assert len(read(root, "train_s", "cityscapes")) == 1
    with pytest.raises(DataError, match="images without fog in their names"):
        read(root, "train_s", "foggy_cityscapes", fog_beta=0.02)
    with pytest.raises(DataError, match=r"has no image of fog_beta '0.005'; there is 0.01, 0.02"):
        read(root, "train_t", "foggy_cityscapes", fog_beta=0.005)


@pytest.mark.parametrize("with_labels", [True, False])
def test_read_cityscapes__foggy_images_are_no_clear_ones(tmp_path: Path, with_labels: bool) -> None:
    root = make_city_voc(tmp_path)
    for split, fogs in (("train_t", r"0.01 \(1\), 0.02 \(1\)"), ("test_t", r"0.02 \(1\)")):
        with pytest.raises(DataError, match=rf"has images of these fogs: {fogs}\. .*foggy_cityscapes"):
            read(root, split, "cityscapes", with_labels=with_labels)
    classes = {"classes": ("car", "person")}
    mixed = read(root, "train_t", "voc", with_labels=with_labels, **classes)
    assert len(mixed) == 2
    assert any(note.startswith("SEVERAL FOGS: the images are of 0.01 (1), 0.02 (1);") for note in mixed.notes)
    assert not any("FOG" in note for note in read(root, "test_t", "voc", with_labels=with_labels, **classes).notes)


def test_read_cityscapes__a_damaged_label_is_named(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path)
    path = next(root.glob("gtFine/train/*/*.json"))
    path.write_text("{")
    with pytest.raises(DataError, match="is no JSON of Cityscapes"):
        read(root, "train")
    path.write_text(json.dumps({"objects": [{"label": "car"}]}))
    with pytest.raises(DataError, match="an object without label or polygon"):
        read(root, "train")
    path.write_text(json.dumps({"imgHeight": 640, "imgWidth": 64, "objects": [_polygon("car", [1, 1, 9, 9])]}))
    with pytest.raises(DataError, match="its labels say '64 x 640'"):
        read(root, "train")


def _polygon(label: str, box: Sequence[int]) -> dict[str, object]:
    left, top, right, bottom = box
    return {"label": label, "polygon": np.array([[left, top], [right, top], [right, bottom]]).tolist()}
