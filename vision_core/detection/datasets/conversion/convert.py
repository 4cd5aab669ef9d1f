"""Conversion of labelled data sets to COCO, VOC or YOLO, and back without loss.

What a format cannot hold is counted by name. ``conversion.json`` beside the converted data keeps it, with the ids of
images and annotations, the names and classes of the source, and what a COCO index (its ``info``, licences, fields of
images) or a file of VOC (source, owner, ...) says beside boxes; a conversion of that data gives it back.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vision_core.detection.datasets.checks import decoded
from vision_core.detection.datasets.coco import index_path
from vision_core.detection.datasets.conversion.coco_files import (
    about_index,
    coco_categories,
    coco_index,
    image_names,
    told_again,
)
from vision_core.detection.datasets.conversion.kept import (
    HOLDS,
    KEPT,
    NUMBER,
    VERSION,
    Layout,
    inside,
    marks,
    read_kept,
    restored,
)
from vision_core.detection.datasets.reading import DetectionDataset, existing_root, read_dataset
from vision_core.detection.datasets.records import objects_of
from vision_core.detection.datasets.voc import write_voc
from vision_core.detection.datasets.yolo import write_yolo
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError, EnvironmentFault, UsageError
from vision_core.files import parse_json, to_json, write_atomic, writing

_IMAGES = {"coco": "{split}", "voc": "JPEGImages", "yolo": "images/{split}"}
_MARKS = {"crowd": "crowd regions", "difficult": "boxes marked difficult"}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What to convert, and how.

    Attributes:
        splits: Names of the lists.
        layout: Layout to write.
        lossy: Write also where the layout cannot hold all.
        links: Make hard links of the images instead of copies.
    """

    splits: tuple[str, ...]
    layout: Layout
    lossy: bool = False
    links: bool = False


@dataclass(kw_only=True)
class _Lists:
    """Lists of a data set in common classes.

    Attributes:
        classes: Names in the order of the labels.
        datasets: The lists by name.
        names: Image names in the source, with folders where file names repeat, of each list.
        categories: Categories of a COCO index, by name; empty for other sources.
        about: ``info`` and ``licenses`` of each COCO index, by list, and other fields of its ``images``, by id.
        lost: Numbers by plural noun of what was left out on the way here.
        notes: Lines for the user.
    """

    classes: tuple[str, ...]
    datasets: dict[str, DetectionDataset] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    categories: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    about: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def convert(data: DetectionData, order: Conversion, folder: Path) -> list[str]:
    """Write lists of a data set in another layout into a new folder; returns lines to print.

    Args:
        data: Where the lists are; where it names classes, these alone are converted.
        order: What to convert.
        folder: New or empty.

    Raises:
        UsageError: The layout cannot hold all, and ``order.lossy`` is not set.
        DataError: A list has problems.
    """
    root = existing_root(data)
    lists = _read(data, root, order.splits)
    lost = lists.lost + _not_held(lists, order.layout)
    if lost and not order.lossy:
        told = "; ".join(f"{number} {what}" for what, number in lost.items())
        raise UsageError(
            f"'{order.layout}' cannot hold all of '{root}': {told}. With --lossy it is written all the same, and what "
            f"was read of this is kept in {KEPT} for the way back."
        )
    if not order.links:
        _check_space(folder, lists)
    origin = {"format": data.format, "folder": root.name}
    _write_whole(folder, lists, order, {"from": origin, "to": order.layout, "not_held": dict(lost)})
    written = [f"{split}: {len(each)} images, {_num_boxes(each)} boxes." for split, each in lists.datasets.items()]
    return [*lists.notes, *written, *(f"Not in the files of '{order.layout}': {n} {what}." for what, n in lost.items())]


def _read(data: DetectionData, root: Path, splits: Sequence[str]) -> _Lists:
    kept = read_kept(root)
    data = data.model_copy(update={"classes": data.classes or tuple(kept.get("classes", ()))})
    read = {split: read_dataset(data, split, with_labels=True, keeps_extras=True) for split in dict.fromkeys(splits)}
    lists = _Lists(classes=tuple(dict.fromkeys(name for each in read.values() for name in each.classes)))
    lists.categories = dict(kept.get("categories", {}))
    for split, dataset in read.items():
        _add(lists, split, dataset, kept.get("lists", {}).get(split, ()), HOLDS.get(str(kept.get("to")), ()))
        lists.about[split] = kept.get("about", {}).get(split, {})
        if data.format == "coco":
            lists.categories |= coco_categories(data, split, dataset.classes)
            lists.about[split] = about_index(parse_json(decoded(index_path(root, split))))
    return lists


def _add(
    lists: _Lists, split: str, dataset: DetectionDataset, kept: Sequence[Mapping[str, Any]], held: Collection[str]
) -> None:
    """Add a list in the common classes, with the names, ids and marks that it had before an earlier conversion."""
    numbers = np.array([lists.classes.index(name) for name in dataset.classes], dtype=np.int64)
    before = {str(each["file"]): each for each in kept}
    records, names = [], []
    for record, name in zip(dataset.records, image_names(dataset.records), strict=True):
        record = replace(record, labels=numbers[record.labels])
        earlier = before.get(name)
        if earlier is not None:
            record, lost = restored(record, earlier, lists.classes, held)
            lists.lost.update(lost)
            name = inside(str(earlier["name"]))
        records.append(record)
        names.append(name)
    lists.datasets[split] = replace(dataset, classes=lists.classes, records=tuple(records))
    lists.names[split] = names
    lists.lost.update(dataset.left_out)
    lists.notes += [f"{split}: {note}" for note in dataset.notes]


def _not_held(lists: _Lists, layout: Layout) -> Counter[str]:
    """Count by name what a layout cannot hold."""
    lost: Counter[str] = Counter()
    for record in (record for dataset in lists.datasets.values() for record in dataset.records):
        for mark, name in _MARKS.items():
            number = int(getattr(record, mark).sum())
            if number and mark not in HOLDS[layout]:
                lost[name] += number
        for extra in record.extras:
            others = [(kind, key) for kind in extra if kind != layout for key in extra[kind] if key != NUMBER]
            lost.update(f"boxes with '{key}' of {kind}" for kind, key in others)
    return lost


def _check_space(folder: Path, lists: _Lists) -> None:
    """Refuse to begin where the disk has no room for the copies."""
    paths = {record.path for dataset in lists.datasets.values() for record in dataset.records}
    needed = sum(path.stat().st_size for path in paths)
    place = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise EnvironmentFault(
            f"'{folder}': the copies of the images need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. Free some "
            "space, or link them with --images link."
        )


def _num_boxes(dataset: DetectionDataset) -> int:
    return sum(len(record.boxes) for record in dataset.records)


def _write_whole(folder: Path, lists: _Lists, order: Conversion, about: Mapping[str, Any]) -> None:
    """Write beside and rename, so that the folder is there whole or not at all."""
    files = _file_names(lists, order.layout)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for split, dataset in lists.datasets.items():
                _place_images(partial / _IMAGES[order.layout].format(split=split), dataset, files[split], order)
                if order.layout == "coco":
                    is_known = set(lists.classes) <= lists.categories.keys()
                    numbered = {name: {"id": number} for number, name in enumerate(lists.classes, start=1)}
                    categories = lists.categories if is_known else numbered
                    plain = coco_index(dataset, files[split], categories, keep_ids=bool(lists.categories))
                    index = told_again(plain, lists.about[split])
                    write_atomic(partial / f"{split}.json", json.dumps(index, ensure_ascii=False, allow_nan=False))
                else:
                    write = write_voc if order.layout == "voc" else write_yolo
                    write(partial, split, dataset, files[split])
            write_atomic(partial / KEPT, to_json({"format": VERSION, **about, **_kept(lists, files, order.layout)}))
            os.umask(mask := os.umask(0))
            partial.chmod(0o777 & ~mask)  # as a folder made by mkdir
            with suppress(FileNotFoundError):
                folder.rmdir()
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _file_names(lists: _Lists, layout: Layout) -> dict[str, list[str]]:
    """Choose names of image files: those of the source, for VOC and YOLO flat and of different stems.

    Raises:
        DataError: A name cannot stand in a list.
    """
    files: dict[str, list[str]] = {}
    taken: dict[tuple[str, str], Path] = {}
    for split, dataset in lists.datasets.items():
        files[split] = []
        for record, name in zip(dataset.records, lists.names[split], strict=True):
            flat = Path(name.replace("/", "__"))
            shared = "" if layout == "voc" else split
            others = (flat.name, f"{split}__{flat.stem}__{flat.suffix[1:]}{flat.suffix}")
            choices = {each: Path(each).stem for each in others} if layout != "coco" else {name: name}
            free = [each for each, key in choices.items() if taken.get((shared, key), record.path) == record.path]
            if not free or free[0] != free[0].strip() or not free[0].isprintable():
                raise DataError(f"'{record.path}' has a name that a list of '{layout}' cannot hold. Rename it.")
            taken[shared, choices[free[0]]] = record.path
            files[split].append(free[0])
    return files


def _place_images(place: Path, dataset: DetectionDataset, names: Sequence[str], order: Conversion) -> None:
    for record, name in zip(dataset.records, names, strict=True):
        source, target = record.path.resolve(), place / name
        if target.exists():  # an image of two lists
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not order.links:
            shutil.copyfile(source, target)
            continue
        try:
            target.hardlink_to(source)
        except OSError as error:
            raise UsageError(
                f"'{source}' cannot be linked to '{place}' ({error.strerror}). Use --images copy."
            ) from error


def _kept(lists: _Lists, files: Mapping[str, Sequence[str]], layout: Layout) -> dict[str, Any]:
    """List what a way back needs and the layout does not hold."""
    listed: dict[str, list[dict[str, Any]]] = {}
    for split, dataset in lists.datasets.items():
        listed[split] = []
        for record, file, name in zip(dataset.records, files[split], lists.names[split], strict=True):
            boxes = [
                {"place": place, **marks(item, layout)}
                for place, item in enumerate(objects_of(record, lists.classes))
                if marks(item, layout)
            ]
            about = {"about": dict(record.about)} if record.about else {}
            listed[split].append({"file": file, "id": record.image_id, "name": name, "boxes": boxes, **about})
    return {"classes": list(lists.classes), "categories": lists.categories, "about": lists.about, "lists": listed}
