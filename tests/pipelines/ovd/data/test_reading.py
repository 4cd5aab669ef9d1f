"""Reading with the base classes alone, and the index that pseudo-labels are added to."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.ovd.config import OvdData
from pipelines.ovd.data.reading import (
    check_scored_classes,
    class_split,
    read_base,
    read_index,
    read_lvis,
    read_scored,
)
from pipelines.ovd.data.vocabulary_split import Split
from tests.pipelines.ovd.tiny import CLASSES, NOVEL
from tests.vision_core.detection.synthetic import make_coco, make_voc
from vision_core.errors import ConfigError, DataError


def _data(root: Path, **words: object) -> OvdData:
    return OvdData.model_validate({"root": root, "classes": CLASSES, "novel": NOVEL, "eval_split": "test", **words})


def test_base__novel_boxes_are_dropped_and_told(tmp_path: Path) -> None:
    make_coco(tmp_path, count=8, classes=CLASSES)
    data = _data(tmp_path)
    dataset, split = read_base(data)
    scored = read_scored(data.model_copy(update={"eval_split": "train"}), split)
    assert dataset.classes == scored.classes == CLASSES
    for few, all_boxes in zip(dataset.records, scored.records, strict=True):
        assert few.labels.tolist() == [label for label in all_boxes.labels.tolist() if label < 2]
    dropped = sum(int((record.labels >= 2).sum()) for record in scored.records)
    assert dataset.left_out["objects of other classes"] == dropped > 0


@pytest.mark.parametrize("make", [make_coco, make_voc])
def test_base__a_class_without_objects_beside_a_novel_name_that_resembles_it(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    """As LVIS has 'cape' and the rare 'crape': the novel one is no misspelling of it, any other name is."""
    root = make(tmp_path, count=4, classes=("disc", "crape"))
    data = _data(root, format=make.__name__.removeprefix("make_"), classes=("disc", "cape", "crape"), novel=("crape",))
    dataset, _ = read_base(data)
    assert {label for record in dataset.records for label in record.labels.tolist()} == {0}
    assert dataset.left_out["objects of other classes"] > 0
    with pytest.raises(DataError, match="objects are of 'crape' and '0' of the class 'cape'"):
        read_base(data.model_copy(update={"classes": ("disc", "cape", "square"), "novel": ("square",)}))


def test_index__of_coco_keeps_ids_and_fields(tmp_path: Path) -> None:
    make_coco(tmp_path, count=4, classes=CLASSES)
    content = json.loads((tmp_path / "train.json").read_text())
    for each in content["annotations"]:
        each["note"] = "kept"
    content["categories"] = [each for each in content["categories"] if each["name"] != "block"]
    content["annotations"] = [each for each in content["annotations"] if each["category_id"] != 7]
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = _data(tmp_path)
    index = read_index(data, *read_base(data))
    assert {each["name"]: each["id"] for each in index["categories"]} == {
        "disc": 1,
        "square": 3,
        "round": 5,
        "block": 6,
    }
    assert index["annotations"] == content["annotations"]
    assert index["images"] == content["images"]


def test_index__ids_as_text_and_blanks_in_names_lose_no_base_box(tmp_path: Path) -> None:
    make_coco(tmp_path, count=4, classes=CLASSES)
    content = json.loads((tmp_path / "train.json").read_text())
    for each in content["annotations"]:
        each["category_id"] = str(each["category_id"])
    for each in content["categories"]:
        each["name"] += " "
    content["categories"].append({"id": "other", "name": "other"})
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = _data(tmp_path)
    dataset, split = read_base(data)
    index = read_index(data, dataset, split)
    assert [each["name"] for each in index["categories"]] == list(CLASSES)
    base = {each["id"] for each in index["categories"] if each["name"] in split.base}
    kept = sum(each["category_id"] in base for each in index["annotations"])
    assert kept == sum(len(record.labels) for record in dataset.records) > 0


@pytest.mark.parametrize("name", ["image_id", "category_id"])
def test_lvis__ids_as_text_lose_no_object(name: str, tmp_path: Path) -> None:
    make_coco(tmp_path, count=4, classes=CLASSES)
    content = json.loads((tmp_path / "train.json").read_text())
    for each in content["annotations"]:
        each[name] = str(each[name])
    for each in content["images"]:
        each |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for each in content["categories"]:
        each["frequency"] = "f"
    (tmp_path / "train.json").write_text(json.dumps(content))
    found, _ = read_lvis(_data(tmp_path, eval_split="train"))
    assert len(found["annotations"]) == len(content["annotations"]) > 0


def test_index__of_voc_is_written_as_coco(tmp_path: Path) -> None:
    make_voc(tmp_path, count=4, classes=CLASSES)
    data = _data(tmp_path, format="voc")
    dataset, split = read_base(data)
    index = read_index(data, dataset, split)
    assert [each["name"] for each in index["categories"]] == list(CLASSES)
    assert len(index["annotations"]) == sum(len(record.labels) for record in dataset.records)
    assert {each["category_id"] for each in index["annotations"]} <= {1, 2}


def test_scored__stated_classes_are_those_of_a_model(tmp_path: Path) -> None:
    split = class_split(_data(tmp_path))
    other = Split(classes=("a", "b"), novel=("b",))
    for classes in (CLASSES, CLASSES[::-1], ()):
        check_scored_classes(_data(tmp_path, classes=classes), {"one": other, "two": split})
    for changed in ({"classes": (*CLASSES, "more")}, {"novel": NOVEL[:1]}):
        with pytest.raises(ConfigError, match=r"data\.novel are not those of 'one', which is scored by its own: 4"):
            check_scored_classes(_data(tmp_path, **changed), {"one": split})


@pytest.mark.parametrize("words", [{"eval_classes": ("disc",)}, {"filter_empty": True}])
def test_split__keys_of_other_tasks_are_not_passed_over(words: dict[str, object], tmp_path: Path) -> None:
    split = class_split(_data(tmp_path))
    for read in (class_split, lambda data: read_scored(data, split)):
        with pytest.raises(ConfigError, match=f"data.{next(iter(words))} has no effect in this task"):
            read(_data(tmp_path, **words))


def test_split__classes_have_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.classes is empty"):
        class_split(_data(tmp_path, classes=()))
    with pytest.raises(ConfigError, match=r"data.eval_split is empty"):
        read_scored(_data(tmp_path, eval_split=None), class_split(_data(tmp_path)))
