"""COCO: one JSON index of images, annotations and categories, beside the folder of images."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vision_core.detection.datasets.records import (
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
from vision_core.images.reading import IMAGE_SUFFIXES, list_images

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
    """A checked index: images and names of categories by number, annotations by the number of their image."""

    path: Path
    images: dict[int | str, Entry]
    names: dict[int | str, str]
    annotations: dict[int | str, list[Entry]]

    @classmethod
    def parse(cls, path: Path, reading: Reading) -> "_Index":
        tables = _load(path)
        images = _by_number(tables["images"], "image", "file_name", reading)
        categories = _by_number(tables["categories"], "category", "name", reading)
        annotations = _by_number(tables["annotations"], "annotation", "bbox", reading)
        grouped: dict[int | str, list[Entry]] = {}
        for number, entry in annotations.items():
            if (image := _key(entry, "image_id")) in images:
                grouped.setdefault(image, []).append(entry)
            else:
                reading.note("annotations of images that are not listed, left out", str(number))
        names = {number: str(categories[number]["name"]) for number in sorted(categories, key=_order)}
        return cls(path=path, images=images, names=names, annotations=grouped)


def _key(entry: Entry, name: str) -> int | str:
    value = entry.get(name)
    return value if isinstance(value, int | str) else repr(value)


def _order(number: int | str) -> tuple[bool, int | str]:
    return isinstance(number, str), number


def _index_path(root: Path, split: str) -> Path:
    candidates = [root / f"{split}.json"]
    candidates += [root / "annotations" / f"{name}.json" for name in (split, f"instances_{split}")]
    for path in candidates:
        if path.is_file():
            return path
    there = ", ".join(sorted(path.name for path in _indexes(root))) or "no index"
    raise DataError(f"'{candidates[0]}' does not exist, nor '{candidates[1]}'; there is '{there}'. Correct data.split.")


def _indexes(root: Path) -> list[Path]:
    return [*root.glob("*.json"), *root.glob("annotations/*.json")]


def _load(path: Path) -> dict[str, list[Entry]]:
    _refuse_oversized(path)
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode())
        size = path.stat().st_size
        raise DataError(f"'{path}' breaks off: {error.msg} at byte '{offset}' of {size}. Copy it again.") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"'{path}' is not a COCO index: {error}. Correct data.split or data.format.") from error
    return {name: _table(content, name, path) for name in ("images", "annotations", "categories")}


def _refuse_oversized(path: Path) -> None:
    needed = path.stat().st_size * _MEMORY_PER_BYTE
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise DataError(
            f"'{path}' would take about '{needed / 1e9:.0f}' GB of memory; this machine has {memory / 1e9:.0f} GB. "
            "Split it into several indexes."
        )


def _table(content: object, name: str, path: Path) -> list[Entry]:
    table = content.get(name) if isinstance(content, dict) else None
    if not isinstance(table, list) or not all(isinstance(entry, dict) for entry in table):
        raise DataError(f"'{path}' has no list '{name}'. A COCO index has 'images', 'annotations' and 'categories'.")
    return table


def _by_number(entries: Sequence[Entry], kind: str, needed: str, reading: Reading) -> dict[int | str, Entry]:
    """The entries that can be used, by id; the others are problems."""
    usable: dict[int | str, Entry] = {}
    for entry in entries:
        number = entry.get("id")
        if not isinstance(number, int | str) or needed not in entry:
            reading.problems.append(f"{kind} '{number}' lacks 'id' or '{needed}'. Complete the index.")
        elif number in usable:
            reading.problems.append(f"{kind} id '{number}' is there more than once. Give each {kind} its own.")
        else:
            usable[number] = entry
    return usable


def _class_list(index: _Index, wanted: tuple[str, ...], reading: Reading) -> ClassList:
    names = list(index.names.values())
    repeated = [name for name, count in Counter(names).items() if count > 1]
    reading.problems += [f"category '{name}' has two ids. Merge them." for name in repeated]
    classes = wanted or tuple(names)
    if not set(classes) & set(names):
        reading.problems.append(
            f"'{index.path}': no category is of the classes '{', '.join(classes)}'; the index names "
            f"'{', '.join(names)}'. Correct data.classes."
        )
    pairs = [f"{number} is '{name}' ({classes.index(name)})" for number, name in index.names.items() if name in classes]
    reading.remarks.append(f"category ids and the classes they are read as: {', '.join(pairs)}")
    reading.remarks += [f"class '{name}' has no category in the index" for name in classes if name not in names]
    return ClassList(names=classes)


def _image_path(root: Path, split: str, image: Entry, reading: Reading) -> Path | None:
    name = str(image["file_name"])
    for folder in _image_folders(root, split):
        path = folder / name
        if path.is_file():
            if path.resolve().is_relative_to(root.resolve()):
                return path
            reading.note("images outside the data set (by a link or '..'), left out", name)
            return None
    reading.note("images listed but missing, left out", name)
    return None


def _image_folders(root: Path, split: str) -> tuple[Path, ...]:
    return root / split, root / "images" / split, root / "images", root


def _record(index: _Index, number: int | str, path: Path, rules: tuple[ClassList, Reading]) -> ImageRecord:
    classes, reading = rules
    image = index.images[number]
    height, width = image.get("height"), image.get("width")
    is_declared = isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0
    size = (int(height or 0), int(width or 0)) if is_declared else size_from_header(path, reading)
    objects = []
    for entry in index.annotations.get(number, ()):
        where = f"annotation {entry['id']}"
        for item in classes.keep(_objects(entry, index, reading), where, reading):
            box = reading.admit(item.box, size, where)
            objects += [replace(item, box=box)] if box is not None else []
    return classes.record(str(number), path, objects, size)


def _objects(entry: Entry, index: _Index, reading: Reading) -> list[LabelledBox]:
    """The one object of an annotation, or none where it is a problem."""
    found = _key(entry, "category_id")
    name = index.names.get(found)
    if name is None:
        known = ", ".join(map(str, index.names))
        reading.problems.append(f"annotation '{entry['id']}' has category id '{found}'; there are {known}. Correct it.")
        return []
    try:
        left, top, width, height = (float(value) for value in entry["bbox"])
    except (TypeError, ValueError):
        reading.problems.append(f"annotation '{entry['id']}' has bbox '{entry['bbox']}', not x, y, width, height.")
        return []
    is_crowd = bool(entry.get("iscrowd")) or bool(entry.get("ignore"))
    return [LabelledBox(name=name, box=(left, top, left + width, top + height), is_crowd=is_crowd)]


def _note_unlisted(paths: Sequence[Path], reading: Reading) -> None:
    for folder in sorted({path.parent for path in paths}):
        on_disk = {path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
        for path in sorted(on_disk.difference(paths)):
            reading.note("images on disk that the index does not list, not used", path.name)


def _named_images(root: Path, listing: Path, reading: Reading) -> list[Path]:
    names = [line.strip() for line in listing.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    found = [_image_path(root, listing.stem, {"file_name": name}, reading) for name in dict.fromkeys(names)]
    paths = [path for path in found if path is not None]
    if not paths:
        raise DataError(f"'{listing}': none of its '{len(names)}' images is under '{root}'. Correct data.root.")
    return paths


def _images_of_folder(root: Path, split: str, reading: Reading) -> list[Path]:
    for folder in (root / split, root / "images" / split):
        if folder.is_dir():
            return list_images(folder)
    if len(_indexes(root)) > 1:
        raise DataError(
            f"'{root}': which images belong to '{split}' stands only in a file with labels, which is not opened here. "
            f"Put the images into '{split}/', or their names into '{split}.txt'."
        )
    reading.remarks.append(f"'{split}' is every image of the folder: the index, which holds labels, was not opened")
    return list_images(root / "images" if (root / "images").is_dir() else root)
