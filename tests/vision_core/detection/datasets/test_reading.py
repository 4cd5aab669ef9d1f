from pathlib import Path

import numpy as np
import pytest

from tests.vision_core.detection.synthetic import SHAPES, make_coco, make_voc
from vision_core.detection.datasets.formats import detect_format
from vision_core.detection.datasets.reading import (
    drop_empty,
    format_note,
    read_dataset,
    refuse_without_boxes,
    shared_images,
)
from vision_core.detection.settings import DetectionData
from vision_core.errors import ConfigError, DataError


def test_read_dataset__voc_and_coco_adaptation_never_opens_labels(tmp_path: Path) -> None:
    for kind, root in (("voc", make_voc(tmp_path / "voc")), ("coco", make_coco(tmp_path / "coco"))):
        for path in (*root.glob("Annotations/*.xml"), *root.glob("*.json")):
            path.unlink()
        data = DetectionData.model_validate({"root": root, "format": kind, "classes": SHAPES})
        assert len(read_dataset(data, "train", with_labels=False)) == 4


def test_read_dataset__plain_folder(tmp_path: Path) -> None:
    root = make_coco(tmp_path) / "train"
    data = DetectionData(root=root, format="images", classes=SHAPES)
    assert len(read_dataset(data, "ignored", with_labels=False)) == 4
    with pytest.raises(ConfigError, match="has no labels"):
        read_dataset(data, "ignored", with_labels=True)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["a.png", "b.JPG", "notes.txt"], "images"),
        (["deep/er/a.tif"], "images"),
        (["JPEGImages/a.jpg", "ImageSets/Main/train.txt"], "voc"),
        (["data.yaml", "images/train/a.png"], "yolo"),
        (["train.json", "a.png"], "coco"),
        (["train/_annotations.coco.json", "train/a.png"], "coco"),
        (["leftImg8bit/train/a/a_leftImg8bit.png"], "cityscapes"),
        (["training/image_2/0.png"], "kitti"),
        (["notes.txt"], "voc"),  # whose reader says what is missing
    ],
)
def test_detect_format__of_the_settings_unless_one_is_given(tmp_path: Path, files: list[str], kind: str) -> None:
    assert detect_format(tmp_path / "nowhere") == "auto"
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert DetectionData(root=tmp_path).format == kind
    assert DetectionData(root=tmp_path, format="sim10k").format == "sim10k"


@pytest.mark.parametrize(("files", "told"), [([], ". Give"), (["notes.txt"], r"; 1 \.txt")])
def test_read_dataset__of_a_folder_without_images_what_it_holds_is_said(
    tmp_path: Path, files: list[str], told: str
) -> None:
    for name in files:
        (tmp_path / name).touch()
    for with_labels in (True, False):
        with pytest.raises(DataError, match=f"holds 0 images{told}"):
            read_dataset(DetectionData(root=tmp_path, classes=SHAPES), "train", with_labels=with_labels)


def test_read_dataset__a_folder_of_images_read_as_a_labelled_one_is_told(tmp_path: Path) -> None:
    root = make_coco(tmp_path) / "train"
    data = DetectionData(root=root, format="voc", classes=SHAPES)
    with pytest.raises(DataError, match="has no 'ImageSets/Main', and looks like 'images', a plain folder without lab"):
        read_dataset(data, "test", with_labels=True)


def test_read_dataset__a_folder_that_is_not_there_is_taken_for_its_like(tmp_path: Path) -> None:
    (tmp_path / "my images").mkdir()
    with pytest.raises(DataError, match=r"is not a folder\. Did you mean '.*/my images'"):
        read_dataset(DetectionData(root=tmp_path / "my imagse", classes=SHAPES), "train", with_labels=False)
    with pytest.raises(DataError, match=r"is not a folder\. Correct data\.root\."):
        read_dataset(DetectionData(root=tmp_path / "elsewhere" / "a", classes=SHAPES), "train", with_labels=False)


def test_format_note__counts_files_by_kind(tmp_path: Path) -> None:
    root = make_coco(tmp_path) / "train"
    data = DetectionData(root=root, classes=SHAPES)
    dataset = read_dataset(data, "any", with_labels=False)
    assert format_note(dataset, data) == f"{root}: 4 PNG, read as data.format=images."
    assert len(read_dataset(data.model_copy(update={"format": "auto"}), "any", with_labels=False)) == 4


def test_read_dataset__a_folder_of_another_format_is_told(tmp_path: Path) -> None:
    roots = {"voc": make_voc(tmp_path / "voc"), "coco": make_coco(tmp_path / "coco")}
    for kind, is_there, mark in (
        ("yolo", "voc", "data.yaml"),
        ("voc", "coco", "ImageSets/Main"),
        ("coco", "voc", ".json"),
    ):
        data = DetectionData.model_validate({"root": roots[is_there], "format": kind, "classes": SHAPES})
        for with_labels in (True, False):
            with pytest.raises(DataError, match=f"{mark}', and looks like '{is_there}'. Correct data.format"):
                read_dataset(data, "train", with_labels=with_labels)


def test_read_dataset__adaptation_needs_the_classes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.classes is empty"):
        read_dataset(DetectionData(root=make_voc(tmp_path)), "train", with_labels=False)


def test_read_dataset__root_is_looked_for_among_published_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_voc(tmp_path / "published" / "clipart")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "published"))
    monkeypatch.chdir(tmp_path)
    assert len(read_dataset(DetectionData(root=Path("clipart")), "train", with_labels=True)) == 4
    with pytest.raises(DataError, match=r"'watercolor' is not a folder \(nor is '.*published/watercolor'\)\. Correct"):
        read_dataset(DetectionData(root=Path("watercolor")), "train", with_labels=True)


def test_read_dataset__filter_empty_reads_labels_and_says_so_loudly(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    (root / "Annotations" / "train_002.xml").write_text("<annotation/>")
    data = DetectionData(root=root, classes=SHAPES)
    assert len(read_dataset(data, "train", with_labels=False)) == 4
    filtered = read_dataset(data.model_copy(update={"filter_empty": True}), "train", with_labels=False)
    assert [record.image_id for record in filtered.records] == ["train_000", "train_001", "train_003"]
    assert filtered.notes[-1].startswith("TARGET LABELS WERE READ to leave out 1 of 4 images")
    assert all(len(record.boxes) == 0 for record in filtered.records)


def test_drop_empty__images_with_only_crowd_regions_go_too(tmp_path: Path) -> None:
    dataset = read_dataset(DetectionData(root=make_voc(tmp_path)), "train", with_labels=True)
    dataset.records[1].crowd[:] = True
    assert [record.image_id for record in drop_empty(dataset).records] == ["train_000", "train_002", "train_003"]
    assert drop_empty(dataset).notes[-1] == "images without boxes, left out: 1 of 4"


def test_refuse_without_boxes__crowd_regions_are_no_boxes(tmp_path: Path) -> None:
    dataset = read_dataset(DetectionData(root=make_voc(tmp_path)), "train", with_labels=True)
    refuse_without_boxes(dataset)
    for record in dataset.records:
        record.crowd[:] = True
    with pytest.raises(DataError, match="none of its '4' images has a labelled box"):
        refuse_without_boxes(dataset)


def test_read_dataset__copies_within_a_list_are_told(tmp_path: Path) -> None:
    folder = make_voc(tmp_path) / "JPEGImages"
    (folder / "train_003.png").write_bytes((folder / "train_000.png").read_bytes())
    notes = read_dataset(DetectionData(root=tmp_path), "train", with_labels=True).notes
    told = "IMAGES LISTED TWICE: '1' of '4' hold the same bytes as another ('train_003.png' is 'train_000.png')"
    assert any(note.startswith(told) for note in notes)


def test_shared_images__copies_under_other_names_are_found(tmp_path: Path) -> None:
    data = DetectionData(root=make_voc(tmp_path))
    folder = tmp_path / "JPEGImages"
    (folder / "test_003.png").write_bytes((folder / "train_000.png").read_bytes())
    train, test = (read_dataset(data, split, with_labels=True) for split in ("train", "test"))
    assert shared_images(train, test) == ["test_003"]
    assert shared_images(test, train) == ["train_000"]


def test_read_dataset__arrays_have_the_promised_types(tmp_path: Path) -> None:
    record = read_dataset(DetectionData(root=make_voc(tmp_path)), "train", with_labels=True).records[0]
    count = len(record.boxes)
    assert record.boxes.shape == (count, 4)
    assert record.boxes.dtype == np.float32
    assert record.labels.shape == record.difficult.shape == record.crowd.shape == (count,)
    assert record.labels.dtype == np.int64
    assert record.difficult.dtype == record.crowd.dtype == np.bool_
