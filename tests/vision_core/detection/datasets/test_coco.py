import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vision_core.detection.synthetic import make_coco
from vision_core.detection.datasets.coco import image_ids, read_coco, read_coco_images, with_listed_ids
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError

DISC = DetectionData(classes=("disc",))


def test_read_coco__width_and_height_become_corners(tmp_path: Path) -> None:
    root = _edited(make_coco(tmp_path), annotations={"bbox": [3, 4, 10, 20]})
    np.testing.assert_array_equal(read_coco(root, "train", DetectionData()).records[0].boxes[0], [3, 4, 13, 24])


def test_read_coco__classes_follow_the_ids_and_the_map_is_told(tmp_path: Path) -> None:
    dataset = read_coco(make_coco(tmp_path), "train", DetectionData())
    assert dataset.classes == ("disc", "square")
    assert "category ids and the classes they are read as: 1 is 'disc' (0), 3 is 'square' (1)" in dataset.notes


def test_read_coco__order_of_the_given_classes_decides_the_labels(tmp_path: Path) -> None:
    plain = read_coco(make_coco(tmp_path), "train", DetectionData())
    turned = read_coco(tmp_path, "train", DetectionData(classes=("square", "disc")))
    for one, other in zip(plain.records, turned.records, strict=True):
        np.testing.assert_array_equal(one.labels, 1 - other.labels)


def test_read_coco__classes_without_category_are_told_and_none_at_all_is_refused(tmp_path: Path) -> None:
    dataset = read_coco(make_coco(tmp_path), "train", DetectionData(classes=("disc", "cone")))
    assert "class 'cone' has no category in the index" in dataset.notes
    with pytest.raises(DataError, match="no category is of the classes 'cone'; the index names 'disc, square'"):
        read_coco(tmp_path, "train", DetectionData(classes=("cone",)))


def test_read_coco__a_category_above_all_others_is_told(tmp_path: Path) -> None:
    root = make_coco(tmp_path)
    index = json.loads((root / "train.json").read_text())
    index["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
    (root / "train.json").write_text(json.dumps(index))
    found = read_coco(root, "train", DetectionData())
    assert found.classes == ("shapes", "disc", "square")
    told = "names without an object in this list, which are classes all the same (data.classes chooses): 1 (shapes)"
    assert told in found.notes
    assert not any("without an object" in note for note in read_coco(root, "train", DISC).notes)


def test_read_coco__folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no COCO index\. Correct data\.root or data\.format"):
        read_coco(tmp_path, "train", DetectionData())


@pytest.mark.parametrize("name", ["annotations/train.json", "annotations/instances_train.json"])
def test_read_coco__index_in_the_official_place(name: str, tmp_path: Path) -> None:
    root = make_coco(tmp_path)
    (root / "annotations").mkdir()
    (root / "train.json").rename(root / name)
    assert len(read_coco(root, "train", DetectionData())) == 4


def test_read_coco__images_in_a_shared_folder(tmp_path: Path) -> None:
    root = make_coco(tmp_path)
    (root / "train").rename(root / "images")
    assert len(read_coco(root, "train", DetectionData())) == 4


def test_read_coco__images_with_addresses_instead_of_names(tmp_path: Path) -> None:
    root = make_coco(tmp_path)
    index = json.loads((root / "train.json").read_text())
    for image in index["images"]:
        image["coco_url"] = f"http://images.example.org/train/{image.pop('file_name')}"
    (root / "lvis_v1_train.json").write_text(json.dumps(index))
    found = read_coco(root, "lvis_v1_train", DetectionData())
    assert [each.path for each in found.records] == [root / "train" / f"00{number}.png" for number in range(4)]


def test_read_coco__all_problems_in_one_refusal_the_first_five_told(tmp_path: Path) -> None:
    root = make_coco(tmp_path, count=8)
    index = json.loads((root / "train.json").read_text())
    for annotation in index["annotations"]:
        annotation["bbox"] = [0, 0, 0, 0]
    (root / "train.json").write_text(json.dumps(index))
    with pytest.raises(DataError) as caught:
        read_coco(root, "train", DetectionData())
    assert len(caught.value.problems) == 6
    assert f"has '{len(index['annotations'])}' problems in all" in caught.value.problems[-1]


def test_read_coco__file_outside_the_data_set_is_left_out(tmp_path: Path) -> None:
    root = make_coco(tmp_path / "data")
    (root / "train" / "000.png").rename(tmp_path / "secret.png")
    _edited(root, images={"file_name": "../../secret.png"})
    dataset = read_coco(root, "train", DetectionData())
    assert len(dataset) == 3
    assert "images outside the data set (by a link or '..'), left out: 1 (../../secret.png)" in dataset.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, "not x, y, width, height"),
        ({"bbox": "wide"}, "not x, y, width, height"),
        ({"category_id": [1]}, r"has category id '\[1\]'"),
        ({"id": None}, "annotation 'None' lacks 'id' or 'bbox'"),
    ],
)
def test_read_coco__annotation_of_the_wrong_shape(change: dict[str, object], message: str, tmp_path: Path) -> None:
    root = _edited(make_coco(tmp_path), annotations=change)
    with pytest.raises(DataError, match=message):
        read_coco(root, "train", DetectionData())


def test_read_coco_images__opens_no_index(tmp_path: Path) -> None:
    root = make_coco(tmp_path)
    for path in root.glob("*.json"):
        path.write_text("poison")
    dataset = read_coco_images(root, "train", DISC)
    assert [record.image_id for record in dataset.records] == ["000.png", "001.png", "002.png", "003.png"]
    assert not dataset.has_labels


def test_read_coco_images__shared_folder_needs_a_list_of_names(tmp_path: Path) -> None:
    root = make_coco(tmp_path)
    (root / "train").rename(root / "images")
    with pytest.raises(DataError, match=r"Put the images into 'train/', or their names into 'train\.txt'"):
        read_coco_images(root, "train", DISC)
    (root / "train.txt").write_text("001.png\n003.png\n")
    assert [record.image_id for record in read_coco_images(root, "train", DISC).records] == ["001.png", "003.png"]
    (root / "train.txt").write_text("001.png\n003.png\n001.png\n")
    with pytest.raises(DataError, match=r"lists '001\.png' more than once"):
        read_coco_images(root, "train", DISC)


def test_read_coco_images__one_index_means_every_image_and_says_so(tmp_path: Path) -> None:
    root = make_coco(tmp_path)
    (root / "train").rename(root / "images")
    (root / "test.json").unlink()
    dataset = read_coco_images(root, "train", DISC)
    assert len(dataset) == 4
    assert "was not opened" in dataset.notes[0]


def _edited(root: Path, **changes: dict[str, object]) -> Path:
    """The folder, with the first entry of each named table changed."""
    index = json.loads((root / "train.json").read_text())
    for table, change in changes.items():
        index[table][0].update(change)
    (root / "train.json").write_text(json.dumps(index))
    return root


def _listed(folder: Path, *names: str) -> Path:
    images = [{"id": 10 + place, "file_name": name} for place, name in enumerate(names)]
    (folder / "index.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return folder / "index.json"


def test_image_ids__by_the_end_of_the_path_else_by_name(tmp_path: Path) -> None:
    index = _listed(tmp_path, "x/a.png", "y/a.png", "deep/b.png")
    paths = [Path("in/y/a.png"), Path("in/x/a.png"), Path("elsewhere/b.png")]
    assert image_ids(index, paths) == dict(zip(paths, (11, 10, 12), strict=True))


@pytest.mark.parametrize(
    ("names", "paths", "told"),
    [
        (["a.png"], ["in/b.png"], "'in/b.png' has no id in .* which does not list it"),
        (["x/a.png", "y/a.png"], ["in/a.png"], "which lists 2 images that it may be"),
        (["a.png"], ["x/a.png", "y/a.png"], "lists fewer images than there are inputs"),
    ],
)
def test_image_ids__what_is_not_one_image_is_refused(
    names: list[str], paths: list[str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=told):
        image_ids(_listed(tmp_path, *names), [Path(path) for path in paths])


def test_ids__annotations_name_them_as_they_are_listed() -> None:
    index: dict[str, list[Mapping[str, Any]]] = {
        "images": [{"id": 7}, {"id": "b"}],
        "categories": [{"id": "3"}, {"id": 4.0}],
        "annotations": [
            {"id": 1, "image_id": "7", "category_id": 3, "bbox": []},
            {"id": 2, "image_id": "b", "category_id": "4"},
            {"id": 3, "image_id": 9, "category_id": 4.0},
        ],
    }
    before = [dict(each) for each in index["annotations"]]
    found = with_listed_ids(index)["annotations"]
    assert [(each["image_id"], each["category_id"]) for each in found] == [(7, "3"), ("b", 4), (9, 4)]
    assert found[0]["bbox"] == []
    assert type(found[2]["category_id"]) is int
    assert index["annotations"] == before
