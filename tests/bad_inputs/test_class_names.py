"""Names of classes in lists: the three tasks that read labels go by one rule."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data_settings import PretrainData
from pipelines.wsi.cohort.labels import read_labels
from vision_core.detection.datasets.coco import read_coco
from vision_core.detection.datasets.voc import read_voc
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError

Read = Callable[[Path, Sequence[str], tuple[str, ...]], tuple[str, ...]]


def _table(path: Path, header: Sequence[str], labels: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *([f"i{number}.png", label] for number, label in enumerate(labels))])


def _images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"i{number}.png")


def slides(root: Path, labels: Sequence[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    """A CSV of slides."""
    _table(root / "labels.csv", ("slide", "label"), labels)
    return read_labels(root / "labels.csv", classes).classes


def pretrain(root: Path, labels: Sequence[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    """A CSV of images."""
    _images(root, len(labels))
    _table(root / "train.csv", ("filename", "label"), labels)
    return read_images(PretrainData(root=root, format="csv", classes=classes), "train").classes


def coco(root: Path, labels: Sequence[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    """Categories of a COCO index, each with a box."""
    _images(root / "train", len(labels))
    names = list(dict.fromkeys(labels))
    images = [{"id": number, "file_name": f"i{number}.png", "width": 32, "height": 32} for number in range(len(labels))]
    boxes = [
        {"id": number, "image_id": number, "category_id": names.index(label), "bbox": [number, 2, 9, 9], "iscrowd": 0}
        for number, label in enumerate(labels)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    document = {"images": images, "annotations": boxes, "categories": categories}
    (root / "train.json").write_text(json.dumps(document))
    return read_coco(root, "train", DetectionData(root=root, format="coco", classes=classes)).classes


def voc(root: Path, labels: Sequence[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    """Objects of VOC annotations."""
    _images(root / "JPEGImages", len(labels))
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for number, label in enumerate(labels):
        box = f"<xmin>{number + 1}</xmin><ymin>2</ymin><xmax>20</xmax><ymax>20</ymax>"
        (root / "Annotations" / f"i{number}.xml").write_text(
            "<annotation><size><width>32</width><height>32</height></size>"
            f"<object><name>{label}</name><bndbox>{box}</bndbox></object></annotation>",
            encoding="utf-8",
        )
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(f"i{number}" for number in range(len(labels))))
    return read_voc(root, "train", DetectionData(root=root, format="voc", classes=classes)).classes


TASKS = (slides, pretrain, coco, voc)


@pytest.mark.parametrize("read", TASKS)
@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (("cat", "CAT", "dog"), "CAT"),
        (("cat", "dog", "traffic light", "traffic-light"), "traffic-light"),
        (("tumor", "tum\u043er", "dog"), "tum\u043er"),  # a Cyrillic letter
        (("well-differentiated", "well\u2013differentiated", "dog"), "well\u2013differentiated"),
        (("Hashimoto's", "Hashimoto\u2019s", "dog"), "Hashimoto\u2019s"),
        (("cat", "dog", "cat|dog"), "cat|dog"),  # several labels in one cell
        (("mild", "moderate", "Mild / moderate"), "Mild / moderate"),
        (("cat", "dog", "#N/A"), "#N/A"),
        (("cat", "dog", "nan"), "nan"),
        (("cat", "dog", "None"), "None"),
    ],
)
def test_names__most_likely_one_class_or_none_are_refused(
    read: Read, labels: Sequence[str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, labels, ())
    assert f"'{told}'" in str(caught.value)


@pytest.mark.parametrize("read", TASKS)
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("1.0", "2.0", "2.0"), ("1", "2")),
        (("cat ", "dog\u200b"), ("cat", "dog")),
        (("cafe\u0301", "dog"), ("caf\u00e9", "dog")),
        (("grade 1-2", "grade 12"), ("grade 1-2", "grade 12")),
        (("cat/mouse", "dog"), ("cat/mouse", "dog")),  # of which the parts are no classes
    ],
)
def test_names__are_read_as_they_are_meant(
    read: Read, labels: Sequence[str], expected: tuple[str, ...], tmp_path: Path
) -> None:
    assert read(tmp_path, labels, ()) == expected


@pytest.mark.parametrize("read", TASKS)
def test_names__whoever_means_two_classes_lists_both(read: Read, tmp_path: Path) -> None:
    assert read(tmp_path, ("cat", "CAT", "nan"), ("cat", "CAT", "nan")) == ("cat", "CAT", "nan")


@pytest.mark.parametrize("read", [slides, pretrain])
def test_names__one_number_in_two_ways_is_one_class(read: Read, tmp_path: Path) -> None:
    assert read(tmp_path, ("1", "1.0", "01", "2"), ()) == ("1", "2")
