"""YOLO folders: index, lists, label files, and what is refused in them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.datasets.yolo import label_path
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError
from vision_core.images.drawing import write_png

INDEX = "names: [disc, square]\ntrain: images/train\n"


def make(root: Path, labels: Mapping[str, str | None], index: str = INDEX) -> Path:
    for number, (name, text) in enumerate(labels.items()):
        write_png(root / "images" / "train" / f"{name}.png", np.full((50, 100, 3), number, np.uint8))
        if text is not None:
            path = root / "labels" / "train" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (root / "data.yaml").write_text(index)
    return root


def read(root: Path, split: str = "train", **keys: object) -> DetectionDataset:
    data = DetectionData.model_validate({"root": root, "format": "yolo", **keys})
    return read_dataset(data, split, with_labels=True)


def test_read_yolo__shares_become_pixels_and_an_empty_file_is_background(tmp_path: Path) -> None:
    found = read(make(tmp_path, {"a": "1 0.5 0.5 0.2 0.4\r\n0 0.05 0.1 0.1 0.2\n", "b": ""}))
    first, second = found.records
    assert found.classes == ("disc", "square")
    assert first.boxes.tolist() == [[40, 15, 60, 35], [0, 0, 10, 10]]  # of 100 x 50 px
    assert first.labels.tolist() == [1, 0]
    assert first.size == (50, 100)
    assert (second.image_id, len(second.boxes)) == ("b", 0)
    assert found.left_out == {}


def test_read_yolo__without_a_label_file_an_image_is_no_background(tmp_path: Path) -> None:
    found = read(make(tmp_path, {"a": "0 0.5 0.5 0.2 0.4", "b": None}))
    assert [record.image_id for record in found.records] == ["a"]
    assert found.left_out == {"images without labels": 1}
    with pytest.raises(DataError, match="no image of 'train' has a label file"):
        read(make(tmp_path / "none", {"a": None}))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 120 40 20 30", "not all within 0 and 1"),
        ("0 0.5 -0.2 0.1 0.1", "not all within 0 and 1"),
        ("0 0.5 nan 0.1 0.1", "not all within 0 and 1"),
        ("2 0.5 0.5 0.1 0.1", "has the class '2'; 'data.yaml' names 2"),
        ("disc 0.5 0.5 0.1 0.1", "has the class 'disc'"),
        ("0 0.5 0.5 0.1 0.1 0.9", "detections with a score"),
        ("0,0.5,0.5,0.1,0.1", "has commas"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "9 numbers: a polygon"),
        ("0 0.5 0.5", "has 3 columns"),
        ("0 0.5 0.5 x 0.1", "not made of numbers"),
        ("0 0.5 0.5 0 0.1", "has no area"),
    ],
)
def test_read_yolo__a_bad_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(DataError, match=told) as raised:
        read(make(tmp_path, {"a": f"0 0.5 0.5 0.2 0.2\n{line}\n"}))
    assert "a.txt" in str(raised.value)


def test_read_yolo__names_as_mapping_lists_and_the_places_that_tools_write(tmp_path: Path) -> None:
    labels = {"a": "0 0.5 0.5 0.2 0.4", "b": "1 0.5 0.5 0.2 0.4"}
    expected = ["b", "a"]
    listed = make(tmp_path, labels, "path: /content/data\nnames: {0: disc, 1: square}\ntrain: train.txt\n")
    (listed / "train.txt").write_text("./images/train/b.png\nimages/train/a.png\n")
    assert [record.image_id for record in read(listed).records] == expected  # in the order of the list
    (listed / "data.yaml").write_text("names: {0: disc, 1: square}\ntrain: ../images/train\nval: images/val\n")
    assert len(read(listed)) == 2
    with pytest.raises(DataError, match=r"names the splits 'train, val'. Did you mean 'train'"):
        read(listed, "trains")


@pytest.mark.parametrize("with_labels", [True, False])
def test_read_yolo__an_image_that_is_listed_twice_is_refused(tmp_path: Path, with_labels: bool) -> None:
    root = make(tmp_path, {"a": "0 0.5 0.5 0.2 0.4", "b": ""}, "names: [disc]\ntrain: train.txt\n")
    (root / "train.txt").write_text("./images/train/b.png\nimages/train/a.png\nimages/train/b.png\n")
    data = DetectionData(root=root, format="yolo", classes=("disc",))
    with pytest.raises(DataError, match=r"'data.yaml': 'train' lists '.*b.png' more than once"):
        read_dataset(data, "train", with_labels=with_labels)
    (root / "data.yaml").write_text("names: [disc]\ntrain: [images, images/train]\n")
    with pytest.raises(DataError, match=r"lists '.*a.png' more than once, and '1' others"):
        read_dataset(data, "train", with_labels=with_labels)


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("train: images/train\n", "has no 'names'"),
        ("names: {0: disc, 2: square}\n", "numbers '0, 2', not 0, 1, 2"),
        ("names: [disc, disc]\n", "has 'disc' twice"),
        ("names: [yes, disc]\n", "no list of names"),
        ("names: [disc]\nnc: 3\n", "nc is '3', and there are 1 names"),
        ("names: [a\n", "is not YAML"),
        ("names:\n  0: disc\n  1: square\n  1: tree\n", "key '1' is given twice"),
        ("train: images/train\ntrain: images/val\nnames: [disc]\n", "key 'train' is given twice"),
    ],
)
def test_read_yolo__a_bad_index_is_told(tmp_path: Path, index: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read(make(tmp_path, {"a": ""}, index))


def test_read_yolo__classes_are_chosen_by_name(tmp_path: Path) -> None:
    root = make(tmp_path, {"a": "1 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.2\n"})
    found = read(root, classes=("square",))
    assert found.records[0].boxes.tolist() == [[40, 15, 60, 35]]
    assert found.left_out == {"objects of other classes": 1}
    with pytest.raises(DataError, match="no class of the files"):
        read(root, classes=("tree",))
    (root / "data.yaml").write_text("names: [disc, square, tree]\ntrain: images/train\n")
    assert any(note.endswith("(data.classes chooses): 1 (tree)") for note in read(root).notes)


def test_read_yolo__images_alone_open_no_label(tmp_path: Path) -> None:
    root = make(tmp_path, {"a": "this is no label", "b": None})
    data = DetectionData(root=root, format="yolo", classes=("disc",))
    found = read_dataset(data, "train", with_labels=False)
    assert [record.image_id for record in found.records] == ["a", "b"]
    assert not found.has_labels


def test_label_path__the_last_folder_of_images_counts(tmp_path: Path) -> None:
    assert (
        label_path(tmp_path / "images" / "x" / "images" / "a.b.jpg", tmp_path) == tmp_path / "images/x/labels/a.b.txt"
    )
    assert label_path(tmp_path / "train" / "a.jpg", tmp_path) == tmp_path / "train" / "a.txt"
