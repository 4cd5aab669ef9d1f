"""The file of pseudo-labels: there and back, read by pycocotools, refused for other data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO
from torch.nn import functional

from pipelines.ovd.config import Candidates
from pipelines.ovd.data.vocabulary_split import Split, base_dataset
from pipelines.ovd.pseudo_labels.label_file import coco_index, read_labels, write_labels
from pipelines.ovd.pseudo_labels.shards import ScoredImage
from vision_core.detection.datasets.records import ClassList, DetectionDataset, LabelledBox
from vision_core.errors import DataError

SPLIT = Split(classes=("person", "cat", "car", "dog"), novel=("cat", "dog"))
EMBEDDINGS = functional.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), dim=1)
HEADER = {"class_names": ["cat", "dog"], "temperature": 0.01}


def _dataset() -> DetectionDataset:
    classes = ClassList(names=("person", "car"))
    records = tuple(
        classes.record(name, Path(f"{name}.png"), [LabelledBox(name="car", box=(1.0, 2, 30, 40))][:count], (80, 90))
        for name, count in (("a", 1), ("b", 0))
    )
    return DetectionDataset(name="list:train", classes=classes.names, records=records, has_labels=True)


def _scored(image_id: str, *rows: tuple[list[float], float, float, int]) -> ScoredImage:
    return ScoredImage(
        image_id=image_id,
        boxes=[box for box, _, _, _ in rows],
        rpn_scores=[rpn for _, _, rpn, _ in rows],
        clip_scores=[[clip, 1 - clip] for _, clip, _, _ in rows],
        classes=[[name, 1 - name] for _, _, _, name in rows],
    )


SCORED = [
    _scored(
        "a", ([10.0, 10, 30.5, 40], 0.9, 0.2, 1), ([50.0, 10, 80, 40], 0.4, 0.9, 0), ([50, 50, 70, 70], 0.7, 0.95, 0)
    ),
    _scored("b"),
    _scored("elsewhere", ([0.0, 0, 20, 20], 0.99, 0.99, 0)),
]


def _write(folder: Path, settings: Candidates | None = None) -> tuple[Path, int, tuple[str, ...]]:
    path = folder / "labels.json"
    index = coco_index(_dataset(), SPLIT)
    made = write_labels(path, index, SCORED, SPLIT, EMBEDDINGS, settings or Candidates(), HEADER)
    return path, *made


def test_file__base_boxes_and_candidates(tmp_path: Path) -> None:
    path, count, notes = _write(tmp_path)
    assert count == 2
    assert notes == ("1 candidates of images that the list does not have were left out.",)
    content = json.loads(path.read_text())
    base, first, second = content["annotations"]
    assert (base["bbox"], base["is_pseudo"], base["category_id"]) == ([1.0, 2, 29, 38], False, 3)
    assert "confidence" not in base
    expected = {
        "id": -1,
        "image_id": "a",
        "category_id": 4,
        "bbox": [10.0, 10.0, 20.5, 30.0],
        "area": 615.0,
        "iscrowd": 0,
        "segmentation": [],
        "confidence": 0.9,
        "clip_score": 0.9,
        "rpn_score": 0.2,
        "is_pseudo": True,
    }
    assert first == expected
    assert (second["id"], second["category_id"]) == (-2, 2)
    assert [len(each["text_emb"]) for each in content["categories"]] == [6] * 4


def test_file__is_read_by_pycocotools(tmp_path: Path) -> None:
    tool = COCO(str(_write(tmp_path)[0]))
    assert [each["name"] for each in tool.loadCats(tool.getCatIds())] == list(SPLIT.classes)
    assert sorted(tool.getAnnIds(imgIds=["a"])) == [-2, -1, 1]
    assert tool.getAnnIds(imgIds=["a"], areaRng=[600, 700]) == [-1]


def test_read__gives_the_candidates_back(tmp_path: Path) -> None:
    path, _, _ = _write(tmp_path)
    found = read_labels(path, base_dataset(_dataset(), SPLIT), SPLIT)
    assert list(found.by_image) == ["a"]
    candidates = found.by_image["a"]
    assert candidates.labels.tolist() == [3, 1]
    assert candidates.boxes.tolist() == [[10, 10, 30.5, 40], [50, 50, 70, 70]]
    assert candidates.clip_scores.tolist() == pytest.approx([0.9, 0.7])
    torch.testing.assert_close(found.embeddings, EMBEDDINGS)


def test_file__both_methods_from_the_same_scores(tmp_path: Path) -> None:
    path, count, _ = _write(tmp_path, Candidates(fusion="mean", threshold=0.8))
    assert count == 1
    [candidate] = [each for each in json.loads(path.read_text())["annotations"] if each["is_pseudo"]]
    assert candidate["confidence"] == pytest.approx(0.825)
    assert candidate["clip_score"] == 0.7


def test_write__same_scores_same_bytes(tmp_path: Path) -> None:
    assert _write(tmp_path / "one")[0].read_bytes() == _write(tmp_path / "two")[0].read_bytes()


def test_write__scores_for_other_names(tmp_path: Path) -> None:
    index = coco_index(_dataset(), SPLIT)
    with pytest.raises(DataError, match="The scores are for 'dog, cat', the novel classes are 'cat, dog'"):
        write_labels(
            tmp_path / "a.json", index, SCORED, SPLIT, EMBEDDINGS, Candidates(), {"class_names": ["dog", "cat"]}
        )


def _other_order(content: dict[str, Any]) -> None:
    content["categories"].reverse()


def _other_images(content: dict[str, Any]) -> None:
    content["info"]["images_hash"] = "0"


def _base_label(content: dict[str, Any]) -> None:
    content["annotations"][1]["category_id"] = 1


def _no_embedding(content: dict[str, Any]) -> None:
    del content["categories"][0]["text_emb"]


def _other_novel(content: dict[str, Any]) -> None:
    content["info"]["novel"] = ["dog"]


def _other_names(content: dict[str, Any]) -> None:
    content["images"][1]["file_name"] = "train/c.png"


def _other_size(content: dict[str, Any]) -> None:
    content["images"][0] |= {"height": "160", "width": 180}


def _no_score(content: dict[str, Any]) -> None:
    del content["annotations"][1]["clip_score"]


def _no_number(content: dict[str, Any]) -> None:
    content["annotations"][1]["confidence"] = float("nan")


def _no_category(content: dict[str, Any]) -> None:
    content["annotations"][1]["category_id"] = 9


def _no_unit(content: dict[str, Any]) -> None:
    content["categories"][0]["text_emb"] = [0.5] * 6


def _shorter(content: dict[str, Any]) -> None:
    content["categories"][0]["text_emb"].pop()


def _no_rows(content: dict[str, Any]) -> None:
    for each in content["categories"]:
        each["text_emb"] = 1.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_no_rows, "is damaged: .*IndexError"),
        (_other_names, "other images than 'list:train': image 'b' is 'c.png' there and 'b.png' here"),
        (_other_size, "made for 'a.png' of 180 x 160 px, which has 90 x 80 px here"),
        (_no_score, "is damaged: .*KeyError: 'clip_score'"),
        (_no_number, "is damaged: .*annotation '-1' has the box"),
        (_no_category, "is damaged: .*KeyError: 9"),
        (_no_unit, "is damaged: .*text_emb are not of length 1"),
        (_shorter, "is damaged: .*ValueError"),
        (_other_order, "for 4 classes .dog, car, cat"),
        (_other_images, "made for other images than 'list:train'"),
        (_base_label, "a pseudo-label of the base class 'person'"),
        (_no_embedding, "lacks the embeddings"),
        (_other_novel, "other novel classes"),
    ],
)
def test_read__refused(change: Callable[[dict[str, Any]], None], told: str, tmp_path: Path) -> None:
    path, _, _ = _write(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=told):
        read_labels(path, base_dataset(_dataset(), SPLIT), SPLIT)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 1, "annotations": [], "categories": []}'])
def test_read__no_such_file_at_all(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(DataError, match=r"labels.json' (is no file of pseudo-labels|lacks)"):
        read_labels(tmp_path / "labels.json", base_dataset(_dataset(), SPLIT), SPLIT)
