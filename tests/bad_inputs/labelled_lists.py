"""Labelled lists whose files and labels do not belong together: code that makes each of them, and sound twins."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.vision_core.detection.synthetic import make_coco, make_voc

Index = dict[str, Any]
COUNT = 6


def suffix_in_capitals(folder: Path) -> Path:
    """Three of six listed files have their suffix in capitals on disk."""
    make_coco(folder, COUNT)
    for number in range(3):
        path = folder / "train" / f"00{number}.png"
        path.rename(path.with_suffix(".PNG"))
    return folder


def half_a_folder(folder: Path) -> Path:
    """Three of six listed VOC images are gone."""
    make_voc(folder, COUNT)
    for number in range(3):
        (folder / "JPEGImages" / f"train_00{number}.png").unlink()
    return folder


def plural_name(folder: Path) -> Path:
    """Objects of ``discs`` where the detector knows ``disc``."""
    return _edited_xml(folder, lambda text: text.replace("<name>disc</name>", "<name>discs</name>"))


def other_case(folder: Path) -> Path:
    """Categories ``Disc`` and ``square``."""
    return edited(folder, lambda index: index["categories"][0].update(name="Disc"))


def two_cases(folder: Path) -> Path:
    """Objects of ``Disc`` in one file, of ``disc`` in the others."""
    make_voc(folder, COUNT)
    paths = [path for path in _annotations(folder) if "<name>disc</name>" in path.read_text()]
    assert len(paths) > 1
    paths[0].write_text(paths[0].read_text().replace("<name>disc</name>", "<name>Disc</name>"))
    return folder


def lost_image_ids(folder: Path) -> Path:
    """Every annotation names an image that is not listed."""

    def lose(index: Index) -> None:
        for entry in index["annotations"]:
            entry["image_id"] = f"{entry['image_id']}.png"

    return edited(folder, lose)


def labels_twice(folder: Path) -> Path:
    """Every annotation stands in the index twice, under two ids."""

    def double(index: Index) -> None:
        index["annotations"] += [entry | {"id": entry["id"] + 1000} for entry in index["annotations"]]

    return edited(folder, double)


def file_under_two_ids(folder: Path) -> Path:
    """Two images of the index are one file."""
    return edited(folder, lambda index: index["images"][1].update(file_name="000.png"))


def file_under_two_names(folder: Path) -> Path:
    """A VOC list names one image by its id and by its file name."""
    with (make_voc(folder, COUNT) / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write("train_000.png\n")
    return folder


def exchanged_sides(folder: Path) -> Path:
    """Width and height are exchanged in the VOC files."""
    pattern = "<width>96</width><height>64</height>"
    return _edited_xml(folder, lambda text: text.replace(pattern, "<width>64</width><height>96</height>"))


def halved_images(folder: Path) -> Path:
    """Every image was halved after labelling."""
    for path in (make_coco(folder, COUNT) / "train").iterdir():
        with Image.open(path) as image:
            image.reduce(2).save(path)
    return folder


def turned_by_exif(folder: Path) -> Path:
    """Photos that EXIF turns, with the size and boxes of the stored frame."""

    def photograph(index: Index) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        for entry in index["images"]:
            path = folder / "train" / entry["file_name"]
            entry["file_name"] = f"{path.stem}.jpg"
            with Image.open(path) as image:
                image.save(path.with_suffix(".jpg"), exif=exif)
            path.unlink()

    return edited(folder, photograph)


def normalised(folder: Path) -> Path:
    """COCO boxes in fractions of the image."""

    def divide(index: Index) -> None:
        for entry in index["annotations"]:
            entry["bbox"] = [value / edge for value, edge in zip(entry["bbox"], (96, 64, 96, 64), strict=True)]

    return edited(folder, divide)


def normalised_voc(folder: Path) -> Path:
    """VOC boxes in fractions of the image."""

    def divide(text: str) -> str:
        return re.sub(r"<([xy])(m\w\w)>(\d+)<", lambda m: f"<{m[1]}{m[2]}>{int(m[3]) / 100:g}<", text)

    return _edited_xml(folder, divide)


def difficult_unknown(folder: Path) -> Path:
    """A mark of difficulty that is neither yes nor no."""
    return _edited_xml(folder, lambda text: text.replace("<difficult>0<", "<difficult>maybe<"))


def latin_list(folder: Path) -> Path:
    """A list in Latin-1."""
    (make_voc(folder, COUNT) / "ImageSets" / "Main" / "train.txt").write_bytes("größe\n".encode("latin-1"))
    return folder


def repeated_key(folder: Path) -> Path:
    """An annotation with two boxes: programs differ in which of them they keep."""
    path = make_coco(folder, COUNT) / "train.json"
    path.write_text(path.read_text().replace('"bbox":', '"bbox": [1, 1, 5, 5], "bbox":', 1))
    return folder


def corners_for_sizes(folder: Path) -> Path:
    """Small boxes at the origin as x, y, x, y, which fit the image; their polygons tell."""

    def exchange(index: Index) -> None:
        for each in index["annotations"]:
            each["segmentation"] = [[8, 9, 28, 9, 28, 29, 8, 29]]
            each["bbox"] = [8, 9, 28, 29]
            each["bbox"][0] += each["id"] / 100  # no two boxes alike

    return edited(folder, exchange)


def rotated_box(folder: Path) -> Path:
    """A box that a labelling tool has turned by 45 degrees, in one of two places."""
    return edited(folder, lambda index: index["annotations"][1].update(attributes={"rotation": 45.0}))


def detections_as_labels(folder: Path) -> Path:
    """The detections of a model, with their scores."""
    return edited(folder, lambda index: [each.update(score=0.4) for each in index["annotations"]])


def box_beside_its_polygon(folder: Path) -> Path:
    """One polygon that does not fit its box, the others do."""

    def draw(index: Index) -> None:
        for number, each in enumerate(index["annotations"]):
            left, top, width, height = each["bbox"]
            right, bottom = left + width / (1 + (number == 0)), top + height
            each["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]

    return edited(folder, draw)


def exchanged_annotations(folder: Path) -> Path:
    """Two annotations under each other's name."""
    make_voc(folder, COUNT)
    one, other = _annotations(folder)[:2]
    first, second = one.read_text(), other.read_text()
    one.write_text(second)
    other.write_text(first)
    return folder


def two_boxes_of_an_object(folder: Path) -> Path:
    """Objects with a second box."""
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    return _edited_xml(folder, lambda text: text.replace("<bndbox>", f"{box}<bndbox>"))


def deleted_objects(folder: Path) -> Path:
    """Objects that a person has taken out, as LabelMe leaves them."""
    return _edited_xml(folder, lambda text: text.replace("<bndbox>", "<deleted>1</deleted><bndbox>"))


def rotated_objects(folder: Path) -> Path:
    """Boxes that CVAT has turned by 30 degrees."""
    turned = "<attributes><attribute><name>rotation</name><value>30.0</value></attribute></attributes>"
    return _edited_xml(folder, lambda text: text.replace("<bndbox>", f"{turned}<bndbox>"))


def no_annotation(folder: Path) -> Path:
    """An index without any annotation."""
    return edited(folder, lambda index: index["annotations"].clear())


def plain_coco(folder: Path) -> Path:
    """A sound COCO folder."""
    return make_coco(folder, COUNT)


def plain_voc(folder: Path) -> Path:
    """A sound VOC folder."""
    return make_voc(folder, COUNT)


def text_image_ids(folder: Path) -> Path:
    """Annotations name their image as text, images have numbers."""

    def quote(index: Index) -> None:
        for entry in index["annotations"]:
            entry["image_id"] = f"{entry['image_id']:03d}"

    return edited(folder, quote)


def fractional_ids(folder: Path) -> Path:
    """All ids are written as 1.0, as data frames with gaps write them."""

    def widen(index: Index) -> None:
        for entry in index["annotations"]:
            entry.update({name: float(entry[name]) for name in ("id", "image_id", "category_id")})

    return edited(folder, widen)


def text_category_ids(folder: Path) -> Path:
    """Annotations name their category as text, categories have numbers."""

    def quote(index: Index) -> None:
        for entry in index["annotations"]:
            entry["category_id"] = str(entry["category_id"])

    return edited(folder, quote)


def roboflow(folder: Path) -> Path:
    """The index beside the images, as Roboflow exports it."""
    make_coco(folder, COUNT)
    for split in ("train", "test"):
        (folder / f"{split}.json").rename(folder / split / "_annotations.coco.json")
    return folder


def utf16_index(folder: Path) -> Path:
    """An index in UTF-16."""
    path = make_coco(folder, COUNT) / "train.json"
    path.write_text(path.read_text(), encoding="utf-16")
    return folder


def utf16_list(folder: Path) -> Path:
    """A list in UTF-16, as Notepad and PowerShell write it."""
    return _relisted(folder, lambda ids: "\r\n".join(ids), encoding="utf-16")


def two_columns(folder: Path) -> Path:
    """A list of one class, as published with VOC."""
    return _relisted(folder, lambda ids: "\n".join(f"{each} {(-1) ** n:>2}" for n, each in enumerate(ids)))


def other_suffixes(folder: Path) -> Path:
    """A list of names with another suffix than the files."""
    return _relisted(folder, lambda ids: "\n".join(f"JPEGImages/{each}.jpg" for each in ids))


def _relisted(folder: Path, write: Callable[[list[str]], str], encoding: str = "utf-8") -> Path:
    path = make_voc(folder, COUNT) / "ImageSets" / "Main" / "train.txt"
    ids = path.read_text().split()
    path.write_text(write(ids), encoding)
    return folder


def edited(folder: Path, edit: Callable[[Index], object]) -> Path:
    path = make_coco(folder, COUNT) / "train.json"
    index = json.loads(path.read_text())
    edit(index)
    path.write_text(json.dumps(index))
    return folder


def _annotations(folder: Path) -> list[Path]:
    return sorted((folder / "Annotations").glob("train_*.xml"))


def _edited_xml(folder: Path, edit: Callable[[str], str]) -> Path:
    make_voc(folder, COUNT)
    for path in _annotations(folder):
        path.write_text(edit(path.read_text()))
    return folder
