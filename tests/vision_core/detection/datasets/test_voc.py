from pathlib import Path

import numpy as np
import pytest

from tests.vision_core.detection.synthetic import make_voc
from vision_core.detection.datasets.records import DetectionDataset, LabelledBox
from vision_core.detection.datasets.voc import VocAnnotation, annotation_xml, read_annotation, read_voc, read_voc_images
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError

MINIMAL = """<annotation><object><name> car </name><bndbox>
<xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"""


def test_read_annotation__one_is_subtracted_from_xmin_and_ymin_alone_and_tags_have_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(MINIMAL)
    annotation = read_annotation(tmp_path / "a.xml")
    assert annotation.objects == (LabelledBox(name="car", box=(10, 20, 30, 40)),)
    assert annotation.size is None


def test_annotation_xml__reads_back_the_same(tmp_path: Path) -> None:
    objects = (
        LabelledBox(name="a & b", box=(0, 0, 5, 7)),
        LabelledBox(name="c", box=(1.5, 2, 3, 4.25), is_difficult=True),
    )
    annotation = VocAnnotation(size=(10, 20), objects=objects)
    (tmp_path / "a.xml").write_text(annotation_xml(annotation, "a.png"))
    assert read_annotation(tmp_path / "a.xml") == annotation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object/></annotation>", "object without a name"),
        (MINIMAL.replace("<xmax>30</xmax>", ""), "the box of a 'car' is"),
        (MINIMAL.replace("30", "wide"), "four numbers are needed"),
        (MINIMAL.replace("<name>", "<name>bus</name><name>"), "a 'bus' has '2' names"),
        (MINIMAL.replace("<xmax>", "<xmax>9</xmax><xmax>"), "a 'car' has '2' numbers xmax"),
    ],
)
def test_read_annotation__incomplete_object(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_annotation(tmp_path / "a.xml")


def test_read_voc__ids_with_suffix_blank_lines_byte_order_mark_and_windows_ends(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    _write_list(root, "\ufefftrain_000.png\r\n\r\ntrain_001\r\n")
    assert [record.image_id for record in read_voc(root, "train", DetectionData()).records] == [
        "train_000",
        "train_001",
    ]


def test_read_voc__dots_in_an_id_are_no_suffix(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    for folder, suffix in (("JPEGImages", "png"), ("Annotations", "xml")):
        path = root / folder / f"train_000.{suffix}"
        path.rename(path.with_name(f"town_foggy_beta_0.02.{suffix}"))
    _write_list(root, "town_foggy_beta_0.02\n")
    assert len(read_voc(root, "train", DetectionData()).records[0].boxes) > 0


def test_read_voc__names_off_the_list_are_dropped_and_counted(tmp_path: Path) -> None:
    every = read_voc(make_voc(tmp_path), "train", DetectionData())
    discs = read_voc(tmp_path, "train", DetectionData(classes=("disc",)))
    num_squares = sum(int((record.labels == every.classes.index("square")).sum()) for record in every.records)
    assert _num_boxes(discs) == _num_boxes(every) - num_squares
    assert discs.notes[0].startswith(f"objects of class 'square', not in data.classes, dropped: {num_squares} (")


def test_read_voc__no_object_of_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no object is of the classes 'Disc'; the files name 'disc, square'"):
        read_voc(make_voc(tmp_path), "train", DetectionData(classes=("Disc",)))


def test_read_voc__difficult_boxes_are_kept_and_marked(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    path = root / "Annotations" / "train_000.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    record = read_voc(root, "train", DetectionData()).records[0]
    assert len(record.boxes) > 0
    assert record.difficult.all()


def test_read_voc__repeated_ids_are_refused(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    _write_list(root, "train_000\ntrain_000\n")
    with pytest.raises(DataError, match="lists 'train_000' more than once"):
        read_voc(root, "train", DetectionData())


def test_read_voc__two_images_for_one_id_are_refused(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    (root / "JPEGImages" / "train_000.jpg").touch()
    with pytest.raises(DataError, match=r"'train_000' is ambiguous: 'train_000\.jpg' and 'train_000\.png'"):
        read_voc(root, "train", DetectionData())


def test_read_voc__missing_images_are_refused_or_told(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    (root / "JPEGImages" / "train_002.png").unlink()
    with pytest.raises(DataError, match="'1' of '4' listed images are missing: train_002"):
        read_voc(root, "train", DetectionData())
    dataset = read_voc(root, "train", DetectionData(on_missing="skip"))
    assert len(dataset) == 3
    assert any(note.startswith("IMAGES MISSING: '1' of '4'") for note in dataset.notes)


def test_read_voc__misspelt_split_and_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'train'"):
        read_voc(make_voc(tmp_path / "voc"), "trian", DetectionData())
    (tmp_path / "other" / "JPEGImages").mkdir(parents=True)
    (tmp_path / "other" / "JPEGImages" / "a.png").touch()
    with pytest.raises(DataError, match="is not a VOC folder"):
        read_voc(tmp_path / "other", "train", DetectionData())


def test_read_voc__size_comes_from_the_image_where_the_file_leaves_it_out(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    path = root / "Annotations" / "train_000.xml"
    path.write_text(path.read_text().replace("<width>96</width>", "<width>0</width>"))
    assert read_voc(root, "train", DetectionData()).records[0].size == (64, 96)


@pytest.mark.parametrize("width", ["192", "192.0", " 192 "])
def test_read_voc__a_size_that_contradicts_the_image_is_refused(tmp_path: Path, width: str) -> None:
    root = make_voc(tmp_path)
    path = root / "Annotations" / "train_000.xml"
    path.write_text(path.read_text().replace("<width>96</width>", f"<width>{width}</width>"))
    with pytest.raises(DataError, match="is '96 x 64' px, its labels say '192 x 64'"):
        read_voc(root, "train", DetectionData())


def test_read_voc_images__opens_no_annotation(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    for path in (root / "Annotations").iterdir():
        path.write_text("poison")
    dataset = read_voc_images(root, "train", DetectionData(classes=("disc",)))
    assert len(dataset) == 4
    assert not dataset.has_labels
    assert all(record.boxes.shape == (0, 4) and record.boxes.dtype == np.float32 for record in dataset.records)


def _write_list(root: Path, text: str) -> None:
    (root / "ImageSets" / "Main" / "train.txt").write_text(text, encoding="utf-8", newline="")


def _num_boxes(dataset: DetectionDataset) -> int:
    return sum(len(record.boxes) for record in dataset.records)
