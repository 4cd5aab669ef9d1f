"""KITTI's own tree, and the VOC folder that published code makes of it."""

from pathlib import Path

import pytest

from tests.vision_core.detection.datasets.published import make_kitti, make_voc_lists
from vision_core.detection.datasets.kitti import CLASSES
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError


def read(root: Path, split: str, *classes: str, with_labels: bool = True) -> DetectionDataset:
    return read_dataset(DetectionData(root=root, format="kitti", classes=classes), split, with_labels=with_labels)


def test_read_kitti__types_in_lower_case_and_what_nobody_cares_for(tmp_path: Path) -> None:
    found = read(make_kitti(tmp_path), "training")
    car, pedestrian, empty = found.records
    assert found.classes == CLASSES
    assert car.boxes[0].tolist() == [4, 6, 30.5, 25]
    assert car.labels.tolist() == [0, *range(len(CLASSES))]
    assert car.crowd.tolist() == [False] + [True] * len(CLASSES)  # the region is one of every class
    assert car.boxes[1:].tolist() == [[40, 2, 60, 12]] * len(CLASSES)
    assert pedestrian.labels.tolist() == [CLASSES.index("pedestrian")]
    assert len(empty.boxes) == 0


def test_read_kitti__cars_alone_and_lists(tmp_path: Path) -> None:
    root = make_kitti(tmp_path)
    found = read(root, "training", "car")
    assert found.records[0].crowd.tolist() == [False, True]
    assert found.left_out == {"objects of other classes": 1}
    assert [record.image_id for record in read(root, "val").records] == ["000001"]
    with pytest.raises(DataError, match="there is 'training, trainval, val'"):
        read(root, "test")
    with pytest.raises(DataError, match="labels of KITTI's 'testing' are not published"):
        read(root, "testing")
    with pytest.raises(DataError, match="'1' objects are of 'car' and '0' of the class 'Car'"):
        read(root, "training", "Car")


def test_read_kitti__ids_with_suffix_and_ids_listed_twice(tmp_path: Path) -> None:
    root = make_kitti(tmp_path)
    (root / "ImageSets" / "val.txt").write_text("000001.png\n000000\n")
    assert [record.image_id for record in read(root, "val").records] == ["000001", "000000"]
    (root / "ImageSets" / "val.txt").write_text("000001.png\n000000\n000001\n")
    for with_labels in (True, False):
        with pytest.raises(DataError, match="lists '000001' more than once"):
            read(root, "val", with_labels=with_labels)


def test_read_kitti__images_alone(tmp_path: Path) -> None:
    root = make_kitti(tmp_path)
    for path in root.glob("training/label_2/*.txt"):
        path.unlink()
    assert len(read(root, "training", with_labels=False)) == 3
    with pytest.raises(DataError, match="'3' of '3' images have no label file"):
        read(root, "training")


def test_read_kitti__a_result_file_is_no_label(tmp_path: Path) -> None:
    root = make_kitti(tmp_path)
    path = root / "training" / "label_2" / "000001.txt"
    path.write_text(path.read_text().rstrip("\n") + " 0.93\n")
    with pytest.raises(DataError, match="line 1 has detections with a score, not the 15"):
        read(root, "training")


def test_read_kitti__the_voc_folder_of_published_code(tmp_path: Path) -> None:
    root = make_voc_lists(tmp_path, {"trainval": ["000000", "000001"]}, ("car",), "png")
    found = read(root, "trainval", "car", "background")
    assert found.classes == ("car", "background")
    assert [record.labels.tolist() for record in found.records] == [[0], [0]]
