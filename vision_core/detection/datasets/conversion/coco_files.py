"""COCO indexes made of records: images, annotations and categories."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from vision_core.detection.datasets.checks import decoded
from vision_core.detection.datasets.coco import index_path
from vision_core.detection.datasets.conversion.kept import NUMBER
from vision_core.detection.datasets.reading import DetectionDataset, ImageRecord, existing_root
from vision_core.detection.datasets.records import LabelledBox, objects_of, size_of
from vision_core.detection.settings import DetectionData
from vision_core.evaluation.class_names import written_name
from vision_core.files import parse_json

_OF_IMAGES = {"id", "file_name", "width", "height"}  # fields of an image that are made anew
_TABLES = {"images", "annotations", "categories"}


def image_names(records: Sequence[ImageRecord]) -> list[str]:
    """Name each image by its file, or by its path where file names repeat."""
    counts = Counter(record.path.name for record in records)
    above = Path(os.path.commonpath([record.path.parent for record in records])) if records else Path()
    paths = [record.path for record in records]
    return [path.name if counts[path.name] == 1 else path.relative_to(above).as_posix() for path in paths]


def coco_categories(data: DetectionData, split: str, classes: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Find the categories of classes: those of a COCO index, else numbered from 1.

    Args:
        data: Where the list is.
        split: Its name.
        classes: Names.
    """
    numbered = {name: {"id": number, "name": name} for number, name in enumerate(classes, start=1)}
    if data.format != "coco":
        return dict(numbered)
    listed = parse_json(decoded(index_path(existing_root(data), split)))["categories"]
    known = {written_name(str(each["name"])): each for each in listed}
    return {name: known[name] for name in classes} if set(classes) <= known.keys() else dict(numbered)


def coco_index(
    dataset: DetectionDataset, names: Sequence[str], categories: Mapping[str, Mapping[str, Any]], *, keep_ids: bool
) -> dict[str, Any]:
    """Build a COCO index.

    Args:
        dataset: The list.
        names: File names of its images.
        categories: Category of each class, by name.
        keep_ids: Whether the ids of the images are those of an index; others are numbered from 1.
    """
    texts = [record.image_id for record in dataset.records]
    ids: list[int | str] = list(range(1, len(texts) + 1))
    if keep_ids:
        ids = [int(text) if text.isdecimal() and str(int(text)) == text else text for text in texts]
    numbers = _annotation_numbers(dataset)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record, name, number in zip(dataset.records, names, ids, strict=True):
        height, width = size_of(record)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for item in objects_of(record, dataset.classes):
            known = {"image_id": number, "category_id": categories[item.name]["id"]}
            annotations.append({"id": numbers[len(annotations)]} | known | _coco_fields(item))
    listed = [{**categories[name], "name": name} for name in dataset.classes]
    return {"images": images, "annotations": annotations, "categories": listed}


def about_index(index: Mapping[str, Any]) -> dict[str, Any]:
    """Take what an index says beside boxes and categories."""
    about = {name: table for name, table in index.items() if name not in _TABLES}
    images = {
        str(each["id"]): {name: each[name] for name in each if name not in _OF_IMAGES} for each in index["images"]
    }
    return about | {"images": {number: fields for number, fields in images.items() if fields}}


def told_again(index: dict[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Add what ``_about`` took to an index."""
    others = about.get("images", {})
    images = [{**others.get(str(each["id"]), {}), **each} for each in index["images"]]
    return {**{name: table for name, table in about.items() if name not in _TABLES}, **index, "images": images}


def _coco_fields(item: LabelledBox) -> dict[str, Any]:
    left, top, right, bottom = item.box
    box = [round(edge, 4) for edge in (left, top, right - left, bottom - top)]
    fields = {name: value for name, value in item.extra.get("coco", {}).items() if name != NUMBER}
    is_crowd = int(item.is_crowd and not fields.get("ignore"))
    return {"bbox": box, "area": round(box[2] * box[3], 4), "iscrowd": is_crowd, "segmentation": [], **fields}


def _annotation_numbers(dataset: DetectionDataset) -> list[int | str]:
    """Number the annotations as an index before did; new ones, and repeated numbers, follow the largest."""
    extras = [extra for record in dataset.records for extra in record.extras or [{}] * len(record.boxes)]
    before = [extra.get("coco", {}).get(NUMBER) for extra in extras]
    free = count(1 + max((number for number in before if isinstance(number, int)), default=0))
    seen: set[int | str] = set()
    numbers: list[int | str] = []
    for number in before:
        numbers.append(next(free) if number is None or number in seen else number)
        seen.add(numbers[-1])
    return numbers
