"""COCO: one JSON index of images, annotations and categories, beside the folder of images."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vision_core.detection.records import (
    ClassList,
    DetectionDataset,
    ImageRecord,
    LabelledBox,
    Reading,
    size_from_header,
    unlabelled,
)
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError
from vision_core.images import list_images

Entry = Mapping[str, Any]

_MEMORY_PER_BYTE = 8  # what Python's objects take for a byte of JSON, measured and rounded up


def read_coco(root: Path, split: str, data: DetectionData) -> DetectionDataset:
    """Read a split with its labels; without ``data.classes`` the classes are the categories, by number.

    Annotations with ``iscrowd`` or ``ignore`` become crowd regions.

    Raises:
        DataError: The index cannot be read, or has problems: the first five and their number are told.
    """
    reading = Reading(data.on_bad_box)
    index = _Index.parse(_index_path(root, split), reading)
    classes = _class_list(index, data.classes, reading)
    paths = {number: _image_path(root, split, image, reading) for number, image in index.images.items()}
    records = [_record(index, number, path, (classes, reading)) for number, path in paths.items() if path]
    if not records and not reading.problems:
        raise DataError(f"'{index.path}': none of its '{len(paths)}' images is under '{root}'. Correct data.root.")
    _note_unlisted([record.path for record in records], reading)
    return reading.dataset(f"{root.name}:{split}", classes.names, records, has_labels=True)


def read_coco_images(root: Path, split: str, data: DetectionData) -> DetectionDataset:
    """Read a split without opening its index, which holds labels.

    The images are those named in ``<split>.txt``, else those in the folder ``<split>``, else all of a folder that has
    no more than one index.

    Raises:
        DataError: Which images belong to the split stands in the index alone, or they are missing.
    """
    reading = Reading(data.on_bad_box)
    listing = root / f"{split}.txt"
    paths = _named_images(root, listing, reading) if listing.is_file() else _images_of_folder(root, split, reading)
    records = [unlabelled(path.name, path) for path in paths]
    return reading.dataset(f"{root.name}:{split}", data.classes, records, has_labels=False)


@dataclass(frozen=True, kw_only=True)
class _Index:
    """A checked index: images and names of categories by number, annotations by number of their image."""

    path: Path
    images: dict[Any, Entry]
    names: dict[Any, str]
    annotations: dict[Any, list[Entry]]

    @classmethod
    def parse(cls, path: Path, reading: Reading) -> "_Index":
        tables = _load(path)
        images = _by_number(tables["images"], f"{path.name}: image", "file_name", reading)
        categories = _by_number(tables["categories"], f"{path.name}: category", "name", reading)
        _by_number(tables["annotations"], f"{path.name}: annotation", "bbox", reading)
        grouped: dict[Any, list[Entry]] = {}
        for entry in tables["annotations"]:
            if entry.get("image_id") in images:
                grouped.setdefault(entry["image_id"], []).append(entry)
            else:
                reading.note("annotations of images that are not listed, left out", str(entry.get("id")))
        names = {number: str(category["name"]) for number, category in sorted(categories.items(), key=_by_key)}
        return cls(path=path, images=images, names=names, annotations=grouped)


def _by_key(item: tuple[Any, Entry]) -> tuple[bool, Any]:
    return isinstance(item[0], str), item[0]


def _index_path(root: Path, split: str) -> Path:
    candidates = [root / f"{split}.json"]
    candidates += [root / "annotations" / f"{name}.json" for name in (split, f"instances_{split}")]
    for path in candidates:
        if path.is_file():
            return path
    there = ", ".join(sorted(path.name for path in _indexes(root))) or "none"
    raise DataError(f"'{candidates[0]}' does not exist, nor '{candidates[1]}'. Indexes there: '{there}'. Correct data.split.")


def _indexes(root: Path) -> list[Path]:
    return [*root.glob("*.json"), *root.glob("annotations/*.json")]


def _load(path: Path) -> dict[str, list[Entry]]:
    _refuse_oversized(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = json.loads(text)
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode())
        raise DataError(
            f"'{path}' is not whole JSON: {error.msg} at byte '{offset}' of {path.stat().st_size}. Copy it again."
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"'{path}' is not a COCO index: {error}. Correct data.split or data.format.") from error
    return {name: _table(content, name, path) for name in ("images", "annotations", "categories")}


def _refuse_oversized(path: Path) -> None:
    needed = path.stat().st_size * _MEMORY_PER_BYTE
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise DataError(
            f"'{path}' would need about '{needed / 1e9:.0f}' GB of memory; this machine has {available / 1e9:.0f} GB. "
            "Split it by images."
        )


def _table(content: object, name: str, path: Path) -> list[Entry]:
    table = content.get(name) if isinstance(content, dict) else None
    if not isinstance(table, list) or not all(isinstance(entry, dict) for entry in table):
        raise DataError(f"'{path}' has no list '{name}'. A COCO index has 'images', 'annotations' and 'categories'.")
    return table


def _by_number(entries: Sequence[Entry], kind: str, needed: str, reading: Reading) -> dict[Any, Entry]:
    numbers = [entry.get("id") for entry in entries]
    repeated = [number for number, count in Counter(map(repr, numbers)).items() if count > 1]
    reading.problems += [f"'{kind} {number}' is there more than once. Give each its own id." for number in repeated]
    lacking = [number for number, entry in zip(numbers, entries, strict=True) if number is None or needed not in entry]
    reading.problems += [f"'{kind} {number}' lacks 'id' or '{needed}'. Complete it." for number in lacking]
    return {number: entry for number, entry in zip(numbers, entries, strict=True) if needed in entry}


def _class_list(index: _Index, wanted: tuple[str, ...], reading: Reading) -> ClassList:
    names = list(index.names.values())
    classes = wanted or tuple(names)
    twice = [name for name, count in Counter(names).items() if count > 1]
    reading.problems += [f"'{index.path.name}: category '{name}'' has two numbers. Merge them." for name in twice]
    absent = [name for name in classes if name not in names]
    if len(absent) == len(classes):
        reading.problems.append(
            f"'{index.path}' has none of the classes '{', '.join(classes)}', but '{', '.join(names)}'. Correct data.classes."
        )
    for name in absent:
        reading.note(f"class '{name}' of data.classes is no category of the index", index.path.name)
    pairs = ", ".join(f"{number} -> {name}" for number, name in index.names.items() if name in classes)
    reading.note(f"categories read as classes ({pairs})", index.path.name)
    return ClassList(names=classes)
