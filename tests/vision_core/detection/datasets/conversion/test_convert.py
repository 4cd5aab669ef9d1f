"""Conversion between layouts: what each holds, and the way back."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.vision_core.detection.datasets.published import make_kitti
from tests.vision_core.detection.synthetic import SHAPES, make_voc
from vision_core.detection.datasets.conversion.convert import Conversion, convert
from vision_core.detection.datasets.conversion.kept import KEPT, Layout
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError, EnvironmentFault, UsageError
from vision_core.images.drawing import write_png
from vision_core.randomness import key

LAYOUTS: tuple[Layout, ...] = ("coco", "voc", "yolo")
SPLITS = ("train", "val")
NAMES = ("zebra", "disc", "ape")  # in no order


def data(root: Path, layout: str, **keys: object) -> DetectionData:
    return DetectionData.model_validate({"root": root, "format": layout, **keys})


def read(root: Path, layout: str, split: str = "train", classes: tuple[str, ...] = ()) -> DetectionDataset:
    return read_dataset(data(root, layout, classes=classes), split, with_labels=True, keeps_extras=True)


def make_index(root: Path, seed: int, *, with_marks: bool) -> Path:
    """Write a COCO data set of random boxes: fractions of pixels, empty images, ids with gaps, odd file names."""
    generator = np.random.default_rng(key("conversion", seed))
    categories = [{"id": 7 - 2 * at, "name": name, "supercategory": "thing"} for at, name in enumerate(NAMES)]
    for split in SPLITS:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in generator.permutation(6).tolist():
            width, height = (int(edge) for edge in generator.integers(20, 120, 2))
            name = f"{'ab'[number % 2]}/{number // 2:03d}.png" if split == "train" else f"x {number}.v1.png"
            write_png(root / split / name, generator.integers(0, 255, (height, width, 3), dtype=np.uint8))
            images.append({"id": 1000 - 13 * number, "file_name": name, "width": width, "height": height})
            if with_marks and number % 2:
                images[-1] |= {"license": 3, "date_captured": "2013-11-14 11:18:45"}
            for _ in range(int(generator.integers(0, 4)) if number else 0):
                left, top = generator.uniform(0, [width - 4, height - 4])
                box = [left, top, *generator.uniform(2, [width - left, height - top])]
                marks = {"iscrowd": int(generator.random() < 0.3), "segmentation": [_corners(box)], "source": "x"}
                entry = {
                    "id": len(annotations),
                    "image_id": images[-1]["id"],
                    "category_id": int(generator.choice([7, 5, 3])),
                }
                annotations.append(entry | {"bbox": box} | (marks if with_marks else {}))
        index: dict[str, Any] = {"images": images, "annotations": annotations, "categories": categories}
        if with_marks:
            index |= {"info": {"description": split}, "licenses": [{"id": 3, "name": "CC BY", "url": "x"}]}
            index |= {"videos": [{"id": 1, "name": "x"}]}
        (root / f"{split}.json").write_text(json.dumps(index))
    return root


def _corners(box: Sequence[float]) -> list[float]:
    left, top, width, height = box
    return [left, top, left + width, top, left + width, top + height]


def content(dataset: DetectionDataset, *, marks: bool = True) -> list[tuple[Any, ...]]:
    return [
        (
            record.path.name,
            record.size,
            [dataset.classes[label] for label in record.labels],
            *((record.difficult.tolist(), record.crowd.tolist(), record.extras) if marks else ()),
        )
        for record in dataset.records
    ]


def assert_same_boxes(one: DetectionDataset, other: DetectionDataset) -> None:
    for first, second in zip(one.records, other.records, strict=True):
        np.testing.assert_allclose(first.boxes, second.boxes, rtol=0, atol=0.01)


@pytest.mark.parametrize(("between", "seed"), [("voc", 0), ("yolo", 1), ("voc", 2), ("yolo", 3), ("coco", 4)])
def test_convert__coco_there_and_back(tmp_path: Path, between: Layout, seed: int) -> None:
    root = make_index(tmp_path / "a", seed, with_marks=True)
    convert(data(root, "coco"), Conversion(splits=SPLITS, layout=between, lossy=True), tmp_path / "b")
    convert(data(tmp_path / "b", between), Conversion(splits=SPLITS, layout="coco", lossy=True), tmp_path / "c")
    for split in SPLITS:
        first, last = read(root, "coco", split), read(tmp_path / "c", "coco", split)
        assert [record.image_id for record in last.records] == [record.image_id for record in first.records]
        assert _file_names(tmp_path / "c", split) == _file_names(root, split)
        assert content(last) == content(first)
        assert last.classes == first.classes
        assert_same_boxes(first, last)
    before, after = (json.loads((each / "train.json").read_text()) for each in (root, tmp_path / "c"))
    assert sorted(before["categories"], key=str) == sorted(after["categories"], key=str)
    for name in ("info", "licenses", "videos", "images"):
        assert after[name] == before[name]


@pytest.mark.parametrize(("between", "seed"), [("coco", 5), ("yolo", 6)])
def test_convert__voc_there_and_back_with_difficult_boxes(tmp_path: Path, between: Layout, seed: int) -> None:
    start = make_index(tmp_path / "start", seed, with_marks=False)
    root = tmp_path / "a"
    convert(data(start, "coco"), Conversion(splits=SPLITS, layout="voc"), root)
    generator = np.random.default_rng(key("difficult", seed))
    for path in sorted((root / "Annotations").iterdir()):
        parts = path.read_text().split("<difficult>0")
        marks = [f"<difficult>{int(generator.random() < 0.5)}" for _ in parts[1:]]
        path.write_text("".join(part + mark for part, mark in zip(parts, [*marks, ""], strict=True)))
    (root / KEPT).unlink()
    convert(data(root, "voc"), Conversion(splits=SPLITS, layout=between, lossy=True), tmp_path / "b")
    convert(data(tmp_path / "b", between), Conversion(splits=SPLITS, layout="voc"), tmp_path / "c")
    for split in SPLITS:
        first, last = read(root, "voc", split), read(tmp_path / "c", "voc", split)
        assert content(last) == content(first)
        assert_same_boxes(first, last)
    found = [record.difficult for split in SPLITS for record in read(root, "voc", split).records]
    assert 0 < np.concatenate(found).mean() < 1


@pytest.mark.parametrize(("first", "second"), list(permutations(LAYOUTS, 2)))
def test_convert__without_marks_nothing_is_lost_between_any_two(tmp_path: Path, first: Layout, second: Layout) -> None:
    root = make_index(tmp_path / "a", 7, with_marks=False)
    convert(data(root, "coco"), Conversion(splits=SPLITS, layout=first), tmp_path / "b")
    convert(data(tmp_path / "b", first), Conversion(splits=SPLITS, layout=second), tmp_path / "c")
    convert(data(tmp_path / "c", second), Conversion(splits=SPLITS, layout=first), tmp_path / "d")
    for split in SPLITS:
        start, middle, end = (
            read(tmp_path / name, kind, split, NAMES) for name, kind in (("b", first), ("c", second), ("d", first))
        )
        assert content(start) == content(end)
        with_sizes, without_record = content(start, marks=False), content(middle, marks=False)
        assert [row[1:] for row in with_sizes] == [row[1:] for row in without_record]  # read without conversion.json
        assert any(len(record.boxes) == 0 for record in middle.records)
        assert_same_boxes(start, middle)
        assert_same_boxes(start, end)


def _file_names(root: Path, split: str) -> list[str]:
    return [each["file_name"] for each in json.loads((root / f"{split}.json").read_text())["images"]]


def test_convert__what_a_layout_cannot_hold_is_counted_and_refused(tmp_path: Path) -> None:
    root = make_voc(tmp_path / "a")
    path = root / "Annotations" / "train_000.xml"
    text = path.read_text().replace("<difficult>0", "<difficult>1", 1).replace("<truncated>0", "<truncated>1", 1)
    path.write_text(text)
    order = Conversion(splits=("train",), layout="yolo")
    with pytest.raises(
        UsageError, match=r"'yolo' cannot hold all of .*: 1 boxes marked difficult; 1 boxes with 'truncated'"
    ):
        convert(data(root, "voc"), order, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    lossy = Conversion(splits=("train",), layout="yolo", lossy=True)
    told = convert(data(root, "voc"), lossy, tmp_path / "b")
    assert "Not in the files of 'yolo': 1 boxes marked difficult." in told
    kept = json.loads((tmp_path / "b" / KEPT).read_text())
    assert kept["not_held"] == {"boxes marked difficult": 1, "boxes with 'truncated' of voc": 1}
    convert(data(tmp_path / "b", "yolo"), Conversion(splits=("train",), layout="voc"), tmp_path / "c")
    assert content(read(tmp_path / "c", "voc")) == content(read(root, "voc"))
    assert "<truncated>1</truncated>" in (tmp_path / "c" / "Annotations" / "train_000.xml").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]  # nothing half written


def test_convert__a_box_that_was_changed_since_is_told(tmp_path: Path) -> None:
    root = make_voc(tmp_path / "a")
    path = root / "Annotations" / "train_000.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    convert(data(root, "voc"), Conversion(splits=("train",), layout="yolo", lossy=True), tmp_path / "b")
    label = tmp_path / "b" / "labels" / "train" / "train_000.txt"
    label.write_text("0 0.5 0.5 0.9 0.9\n")
    with pytest.raises(UsageError, match="1 marks of boxes that were changed or removed since"):
        convert(data(tmp_path / "b", "yolo"), Conversion(splits=("train",), layout="voc"), tmp_path / "c")


@pytest.mark.parametrize("between", ["voc", "yolo", "coco"])
def test_convert__numbers_of_annotations_stay_and_new_ones_follow(tmp_path: Path, between: Layout) -> None:
    root = make_index(tmp_path / "a", 8, with_marks=False)
    index = json.loads((root / "train.json").read_text())
    for place, entry in enumerate(index["annotations"]):
        entry["id"] = 40 - 3 * place
    (root / "train.json").write_text(json.dumps(index))
    order = Conversion(splits=("train",), layout=between)
    convert(data(root, "coco"), order, tmp_path / "b")
    convert(data(tmp_path / "b", between), replace(order, layout="coco"), tmp_path / "c")
    assert _numbers(tmp_path / "c") == _numbers(root)
    if between == "yolo":
        label = next(path for path in sorted((tmp_path / "b").glob("labels/*/*.txt")) if path.read_text())
        first, *rest = label.read_text().splitlines()
        label.write_text("\n".join([f"{first[0]} 0.5 0.5 1 1", *rest]))  # a box that is corrected loses its number
        convert(data(tmp_path / "b", between), replace(order, layout="coco"), tmp_path / "d")
        found = [number for numbers in _numbers(tmp_path / "d").values() for number in numbers]
        assert sorted(found)[-1] == 41
        assert len(set(found)) == len(found) == len(index["annotations"])


def _numbers(root: Path) -> dict[int, list[int]]:
    """Numbers of the annotations in their order, by image."""
    found: dict[int, list[int]] = {}
    for entry in json.loads((root / "train.json").read_text())["annotations"]:
        found.setdefault(entry["image_id"], []).append(entry["id"])
    return dict(sorted(found.items()))


@pytest.mark.parametrize("between", ["voc", "yolo", "coco"])
def test_convert__what_a_voc_file_says_of_its_image_comes_back(tmp_path: Path, between: Layout) -> None:
    root = make_voc(tmp_path / "a")
    fields = "<source><database>D &amp; C</database></source><segmented>1</segmented>"
    path = root / "Annotations" / "train_000.xml"
    path.write_text(path.read_text().replace("<size>", f"{fields}<size>").replace("<depth>3", "<depth>1"))
    order = Conversion(splits=("train",), layout=between)
    convert(data(root, "voc"), order, tmp_path / "b")
    convert(data(tmp_path / "b", between), replace(order, layout="voc"), tmp_path / "c")
    text = (tmp_path / "c" / "Annotations" / "train_000.xml").read_text().replace("\n  ", "")
    assert fields in text
    assert "<depth>1</depth>" in text
    assert "<segmented>" not in (tmp_path / "c" / "Annotations" / "train_001.xml").read_text()


def test_convert__marks_that_were_set_since_win_over_the_record(tmp_path: Path) -> None:
    root = make_index(tmp_path / "a", 0, with_marks=True)
    lossy = Conversion(splits=("train",), layout="voc", lossy=True)
    convert(data(root, "coco"), lossy, tmp_path / "b")
    path = next(each for each in sorted((tmp_path / "b").glob("Annotations/*")) if "<object>" in each.read_text())
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    told = convert(data(tmp_path / "b", "voc"), replace(lossy, layout="coco"), tmp_path / "c")
    assert "Not in the files of 'coco': 1 boxes marked difficult." in told


def test_convert__classes_that_are_left_out_are_a_loss(tmp_path: Path) -> None:
    root = make_voc(tmp_path / "a")
    with pytest.raises(UsageError, match="objects of other classes"):
        convert(data(root, "voc", classes=SHAPES[:1]), Conversion(splits=("train",), layout="coco"), tmp_path / "b")


def test_convert__no_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_voc(tmp_path / "a")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    order = Conversion(splits=("train",), layout="coco")
    with pytest.raises(EnvironmentFault, match=r"0\.00 GB are free"):
        convert(data(root, "voc"), order, tmp_path / "b")
    convert(data(root, "voc"), replace(order, links=True), tmp_path / "b")
    assert (tmp_path / "b" / "train" / "train_000.png").samefile(root / "JPEGImages" / "train_000.png")


def test_convert__a_damaged_record_is_told(tmp_path: Path) -> None:
    root = make_voc(tmp_path / "a")
    way_out = {"file": "train_000.png", "id": "1", "name": "../../x.png", "boxes": []}
    (root / KEPT).write_text(json.dumps({"format": 1, "lists": {"train": [way_out]}}))
    with pytest.raises(DataError, match="leads out of its folder"):
        convert(data(root, "voc"), Conversion(splits=("train",), layout="coco"), tmp_path / "b")
    (root / KEPT).write_text('{"format": 1}')
    with pytest.raises(DataError, match="is no record of a conversion"):
        convert(data(root, "voc"), Conversion(splits=("train",), layout="coco"), tmp_path / "b")


def test_convert__columns_of_kitti_are_counted_and_kept(tmp_path: Path) -> None:
    source = data(make_kitti(tmp_path / "kitti"), "kitti", classes=("car", "pedestrian"))
    with pytest.raises(
        UsageError, match="2 boxes with 'truncated' of kitti; 2 boxes with 'occluded' of kitti; 2 boxes"
    ):
        convert(source, Conversion(splits=("training",), layout="coco"), tmp_path / "coco")
    told = convert(source, Conversion(splits=("training",), layout="coco", lossy=True), tmp_path / "coco")
    assert "Not in the files of 'coco': 2 boxes with 'box in space' of kitti." in told
    [car] = json.loads((tmp_path / "coco" / KEPT).read_text())["lists"]["training"][0]["boxes"]
    space = "1.5 1.6 3.9 1.0 1.5 20.0 0.1"
    wanted = {"truncated": "0.00", "occluded": "0", "alpha": "1.55", "box in space": space}
    assert car["extra"] == {"kitti": wanted}
    [again] = read_again(tmp_path / "coco", tmp_path / "voc")["lists"]["training"][0]["boxes"][:1]
    assert again["extra"]["kitti"] == wanted


def read_again(root: Path, folder: Path) -> dict[str, Any]:
    """Convert converted data on, and read what is kept."""
    convert(data(root, "coco"), Conversion(splits=("training",), layout="voc", lossy=True), folder)
    kept: dict[str, Any] = json.loads((folder / KEPT).read_text())
    return kept
