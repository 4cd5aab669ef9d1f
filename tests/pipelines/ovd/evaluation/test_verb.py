"""Predictions of other tools by ``score-lvis``: a case worked out by hand, boxes beside masks."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.ovd.__main__ import main

WHOLE = [[10.0, 10.0, 40.0, 10.0, 40.0, 40.0, 10.0, 40.0]]  # fills its box of 30 x 30 px
PART = [[10.0, 10.0, 40.0, 10.0, 40.0, 30.0, 10.0, 30.0]]  # two thirds of it
BOX = [10.0, 10.0, 30.0, 30.0]


def _index(folder: Path, **change: Any) -> Path:  # noqa: ANN401 (fields of an index)
    """Two images of 100 px; a cat in both, whose masks fill their boxes, and a rare bolt in the second."""
    lists = {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    truth = [(1, 1), (2, 1), (2, 3)]
    content = {
        "images": [{"id": number, "width": 100, "height": 100, **lists} for number in (1, 2)],
        "categories": [
            {"id": 1, "name": "cat", "frequency": "f"},
            {"id": 2, "name": "mug", "frequency": "c"},
            {"id": 3, "name": "bolt", "frequency": "r"},
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": BOX, "area": 900.0, "iscrowd": 0,
             "segmentation": WHOLE}
            for number, (image, category) in enumerate(truth, start=1)
        ],
    }  # fmt: skip
    (folder / "lvis_v1_val.json").write_text(json.dumps(content | change))
    return folder


def _found(image: int, category: int, **fields: object) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "score": 0.9, "bbox": BOX} | fields


def _score(folder: Path, *found: dict[str, object]) -> dict[str, Any]:
    (folder / "found.json").write_text(json.dumps(found))
    (folder / "scores.json").unlink(missing_ok=True)
    where = [f"data.root={folder}", "data.eval_split=lvis_v1_val"]
    files = ["--predictions", str(folder / "found.json"), "--out", str(folder / "scores.json")]
    assert main(["score-lvis", *files, *where]) == 0
    [row] = json.loads((folder / "scores.json").read_text())
    return dict(row)


def test_score__a_mask_of_two_thirds_counts_up_to_its_overlap(tmp_path: Path) -> None:
    """Right boxes at all ten overlaps; masks at .50 to .65, four of ten, where they cover two thirds."""
    _index(tmp_path)
    found = [_found(1, 1, segmentation=PART), _found(2, 1, segmentation=PART), _found(2, 3, segmentation=WHOLE)]
    metrics = _score(tmp_path, *found)["metrics"]
    assert (metrics["ap"], metrics["ap_r"], metrics["ap_c"], metrics["ap_f"]) == (1, 1, None, 1)
    assert metrics["mask_ap_f"] == pytest.approx(0.4)
    assert metrics["mask_ap_r"] == pytest.approx(1)
    assert metrics["mask_ap"] == pytest.approx(0.7)
    assert metrics["mask_ap_c"] is None


def _as_text(**entry: Any) -> dict[str, Any]:  # noqa: ANN401
    return {**entry, "id": f"{entry['id']:04d}"}


@pytest.mark.parametrize("lists", [("images",), ("categories",), ("images", "categories")])
def test_score__ids_as_text_on_either_side_are_those_of_numbers(lists: tuple[str, ...], tmp_path: Path) -> None:
    """A sure bolt in the first image, which is said to have none, costs half of its class whatever the ids are."""
    content = json.loads((_index(tmp_path) / "lvis_v1_val.json").read_text())
    content |= {name: [_as_text(**each) for each in content[name]] for name in lists}
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(content))
    metrics = _score(tmp_path, _found(1, 1), _found(2, 1), _found(2, 3), _found(1, 3, score=0.95))["metrics"]
    assert (metrics["ap_f"], metrics["ap_r"]) == (pytest.approx(1), pytest.approx(0.5))


def test_score__text_in_the_lists_of_an_image_counts(tmp_path: Path) -> None:
    content = json.loads((_index(tmp_path) / "lvis_v1_val.json").read_text())
    images = [{**each, "neg_category_ids": ["3"]} for each in content["images"]]
    _index(tmp_path, images=images)
    assert _score(tmp_path, _found(2, 3), _found(1, 3, score=0.95))["metrics"]["ap_r"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("table", "change", "told"),
    [
        ("annotations", {"bbox": [10, 10, 30]}, "annotation '1' has the box '[10, 10, 30]'"),
        ("annotations", {"bbox": ["10", "10", "30", "30"]}, "annotation '1' has the box"),
        ("annotations", {"bbox": [10, 10, -30, 30]}, "annotation '1' has the box '[10, 10, -30, 30]'"),
        ("annotations", {"bbox": None}, "annotation '1' has the box 'None'"),
        ("images", {"id": 2}, "image id '2' occurs more than once"),
        ("images", {"id": None}, "an entry of 'images' has no 'id'"),
        ("categories", {"id": "2"}, "category id '2' occurs more than once"),
    ],
)
def test_score__a_damaged_index_is_refused(
    table: str, change: dict[str, object], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((_index(tmp_path) / "lvis_v1_val.json").read_text())
    content[table][0] |= change
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(content))
    (tmp_path / "found.json").write_text(json.dumps([_found(2, 1)]))
    words = [f"--predictions={tmp_path / 'found.json'}", f"data.root={tmp_path}", "data.eval_split=lvis_v1_val"]
    assert main(["score-lvis", *words]) == 2
    assert told in capsys.readouterr().err


def test_score__annotations_of_what_is_not_listed_are_counted(tmp_path: Path) -> None:
    content = json.loads((_index(tmp_path) / "lvis_v1_val.json").read_text())
    content["annotations"][0]["image_id"] = 77
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(content))
    assert "ANNOTATIONS LEFT OUT: '1' of '3'" in _score(tmp_path, _found(2, 1))["notes"][0]


def test_score__masks_are_federated_as_boxes_are(tmp_path: Path) -> None:
    """A sure bolt in an image said to have none costs half; a sure mug, for which nobody looked, nothing."""
    _index(tmp_path)
    right = [_found(image, category, segmentation=WHOLE) for image, category in ((1, 1), (2, 1), (2, 3))]
    extra = [_found(1, 3, segmentation=WHOLE, score=0.95), _found(1, 2, segmentation=WHOLE, score=0.95)]
    metrics = _score(tmp_path, *right, *extra)["metrics"]
    assert metrics["ap_r"] == metrics["mask_ap_r"] == pytest.approx(0.5)
    assert metrics["mask_ap_f"] == pytest.approx(1)


def test_score__without_masks_in_file_or_index_boxes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _index(tmp_path)
    row = _score(tmp_path, _found(1, 1), _found(2, 1))
    assert set(row["metrics"]) == {"ap", "ap_r", "ap_c", "ap_f"}
    assert (row["metrics"]["ap_f"], row["metrics"]["ap_r"]) == (1, 0)
    assert row["counts"] == {"images": 2, "predictions": 2, "boxes": 3}
    assert "Not scored by masks: the predictions have none." in capsys.readouterr().out
    content = json.loads((tmp_path / "lvis_v1_val.json").read_text())
    del content["annotations"][0]["segmentation"]
    _index(tmp_path, annotations=content["annotations"])
    assert len(_score(tmp_path, _found(1, 1, segmentation=WHOLE))["metrics"]) == 4
    assert "the index has no mask of some object" in capsys.readouterr().out


def test_score__what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _index(tmp_path)
    (tmp_path / "found.json").write_text(json.dumps([_found(1, 1), _found(2, 1)]))
    where = [f"data.root={tmp_path}", "data.eval_split=lvis_v1_val"]
    words = ["score-lvis", "--predictions", str(tmp_path / "found.json"), "--out", str(tmp_path / "out.json"), *where]
    assert main(words) == 0
    assert main(words) == 2
    assert "exists and is not replaced" in capsys.readouterr().err
    assert main([*words[:3], where[0]]) == 2
    assert "data.eval_split is empty" in capsys.readouterr().err
    content = json.loads((tmp_path / "lvis_v1_val.json").read_text())
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(content)[:-9])
    assert main([*words[:3], *where]) == 2
    assert "breaks off" in capsys.readouterr().err
