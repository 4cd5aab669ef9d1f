"""Reading of detection data sets of any format into records."""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache
from pathlib import Path

from vision_core.config.loading import fingerprint
from vision_core.detection.datasets import cityscapes, kitti, yolo
from vision_core.detection.datasets.coco import read_coco, read_coco_images
from vision_core.detection.datasets.formats import MARKS, coco_indexes, detect_format, places
from vision_core.detection.datasets.records import DetectionDataset, ImageRecord, RefusedDataset, unlabelled
from vision_core.detection.datasets.voc import CLASS_LISTS, VOC_FOLDERS, read_voc, read_voc_images
from vision_core.detection.settings import DetectionData
from vision_core.errors import ConfigError, DataError
from vision_core.files import sha256, stamp
from vision_core.images.folders import left_out_note
from vision_core.images.reading import list_images

__all__ = [
    "DetectionDataset",
    "ImageRecord",
    "drop_empty",
    "manifest",
    "read_dataset",
    "read_for_findings",
    "refuse_without_boxes",
    "shared_images",
]

_SHOWN_COPIES = 3


_CLASS_LISTS = {
    **CLASS_LISTS,
    **dict.fromkeys(("cityscapes", "foggy_cityscapes"), cityscapes.CLASSES),
    "kitti": kitti.CLASSES,
}


def read_dataset(
    data: DetectionData, split: str, *, with_labels: bool, keeps_extras: bool = False, known: Collection[str] = ()
) -> DetectionDataset:
    """Read one split.

    Args:
        data: Folder and format. A relative root that does not exist is looked up among the published data sets
            (``DETECTRON2_DATASETS``).
        split: Name of the list of images; the format ``images`` ignores it.
        with_labels: False, for adaptation: no annotation file is opened, except by ``data.filter_empty``.
        keeps_extras: Keep fields of boxes that detectors do not use, such as polygons.
        known: Names of classes beside ``data.classes``, whose objects are dropped; of VOC and COCO.

    Raises:
        ConfigError: No root is given; no classes are given and labels are not read; the format has no labels, or no
            fog.
        DataError: The data set has problems; the message has the first five and their number.
    """
    root = existing_root(data)
    if data.format == "auto":
        data = data.model_copy(update={"format": detect_format(root)})
    if data.fog_beta is not None and data.format != "foggy_cityscapes":
        raise ConfigError(f"data.fog_beta is for data.format=foggy_cityscapes, and data.format is '{data.format}'.")
    _refuse_other_tree(root, data)
    if with_labels:
        return _tell_copies(_read_labelled(root, split, data, keeps_extras=keeps_extras, known=known))
    data = data.model_copy(update={"classes": data.classes or _CLASS_LISTS.get(data.format, ())})
    if not data.classes:
        raise ConfigError("data.classes is empty, and labels are not read here. Give the classes of the detector.")
    dataset = _read_unlabelled(root, split, data)
    return _filter_empty(dataset, root, data, split) if data.filter_empty else dataset


def format_note(dataset: DetectionDataset, data: DetectionData) -> str:
    """Say how a folder is read: ``my_images: 12 PNG, read as data.format=images``."""
    kinds = Counter(record.path.suffix.lstrip(".").upper() for record in dataset.records)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{data.root}: {counted}, read as data.format={data.format}."


def read_for_findings(name: str, read: Callable[[], DetectionDataset]) -> DetectionDataset:
    """Read a list for all of its findings, those that refuse it among them.

    Args:
        name: For a list of which nothing can be read.
        read: Reads it.
    """
    try:
        return read()
    except RefusedDataset as error:
        return error.dataset
    except DataError as error:
        nothing = DetectionDataset(name=name, classes=(), records=(), has_labels=False)
        return nothing.refusing(error.problems)


def drop_empty(dataset: DetectionDataset) -> DetectionDataset:
    """Drop images without a box other than crowd regions."""
    kept = tuple(record for record in dataset.records if not record.crowd.all())
    dropped = len(dataset) - len(kept)
    notes = [f"images without boxes, left out: {dropped} of {len(dataset)}"] if dropped else []
    return replace(dataset, records=kept).noting(*notes)


def refuse_without_boxes(dataset: DetectionDataset) -> None:
    """Refuse a list to train on that has no box other than crowd regions.

    Raises:
        DataError: There is nothing to learn in it.
    """
    if all(record.crowd.all() for record in dataset.records):
        raise DataError(
            f"'{dataset.name}': none of its '{len(dataset)}' images has a labelled box, and training on them teaches "
            "background alone. Correct the labels or data.split."
        )


def shared_images(first: DetectionDataset, second: DetectionDataset) -> list[str]:
    """List the ids in ``second`` of images that ``first`` contains too.

    Adaptation to images that are scored later is transductive and must be reported.
    """
    digest = cache(sha256)
    by_size: dict[int, list[Path]] = {}
    for record in first.records:
        by_size.setdefault(record.path.stat().st_size, []).append(record.path)

    def is_among(path: Path) -> bool:
        candidates = by_size.get(path.stat().st_size, ())
        return any(path.samefile(other) or digest(path) == digest(other) for other in candidates)

    return [record.image_id for record in second.records if is_among(record.path)]


def manifest(dataset: DetectionDataset) -> str:
    """Hash the names and sizes of the images, wherever they lie and in whatever order."""
    return fingerprint(sorted([record.path.name, record.path.stat().st_size] for record in dataset.records))


def content_manifest(dataset: DetectionDataset) -> str:
    """Hash the names, sizes, ends and labels of the images, in their order: what a run trains on."""
    rows = [
        [each.path.name, each.path.stat().st_size, _ends(each.path), each.labels.tolist(), each.boxes.tolist()]
        for each in dataset.records
    ]
    return fingerprint(rows)


def _tell_copies(dataset: DetectionDataset) -> DetectionDataset:
    """Note images that hold the bytes of another of the list."""
    paths = [record.path for record in dataset.records]
    for likeness in (_size, _ends, sha256):  # from quick to thorough
        alike: dict[object, list[Path]] = {}
        for path in paths:
            alike.setdefault(likeness(path), []).append(path)
        paths = [path for group in alike.values() if len(group) > 1 for path in group]
    groups = [group for group in alike.values() if len(group) > 1]
    copies = [f"'{path.name}' is '{group[0].name}'" for group in groups for path in group[1:]]
    if not copies:
        return dataset
    shown = ", ".join(copies[:_SHOWN_COPIES])
    told = f"IMAGES LISTED TWICE: '{len(copies)}' of '{len(dataset)}' hold the same bytes as another ({shown})"
    return dataset.noting(f"{told}. Each counts in training and score")


def _size(path: Path) -> int:
    return path.stat().st_size


def _ends(path: Path) -> str:
    return stamp(path).ends


def _layout(root: Path, data: DetectionData) -> str:
    """Find the layout of a folder: published data sets also come as VOC folders, converted by others."""
    has_own_layout = data.format in {"voc", "coco", "yolo", "images"}
    is_voc = data.format in CLASS_LISTS or (root / MARKS["voc"]).is_dir()
    return data.format if has_own_layout or not is_voc else "voc"


def _refuse_other_tree(root: Path, data: DetectionData) -> None:
    """Refuse a folder that lacks the mark of its format and has that of another one.

    Raises:
        DataError: The message names the other; or the folder holds no image.
    """
    layout = _layout(root, data)
    if layout == "images" or (coco_indexes(root) if layout == "coco" else (root / MARKS[layout]).exists()):
        return
    others = [f"'{name}'" for name, mark in MARKS.items() if (root / mark).exists()]
    others += ["'coco'"] if not others and coco_indexes(root) else []
    if not others and layout == "voc" and not any((root / name).exists() for name in VOC_FOLDERS):
        list_images(root)  # where there is none, what the folder holds says more than what it lacks
        others = ["'images', a plain folder without labels"]
    if others:
        mark = MARKS.get(layout, "<split>.json")
        raise DataError(f"'{root}' has no '{mark}', and looks like {others[0]}. Correct data.format or data.root.")


def _read_labelled(
    root: Path, split: str, data: DetectionData, *, keeps_extras: bool = False, known: Collection[str] = ()
) -> DetectionDataset:
    layout = _layout(root, data)
    if layout == "images":
        raise ConfigError(
            f"data.format is 'images': '{root}' has no labels. Use 'voc', 'coco' or 'yolo' to train or evaluate."
        )
    if layout == "voc":
        own = CLASS_LISTS.get(data.format, ()) or (cityscapes.CLASSES if "cityscapes" in data.format else ())
        data = data.model_copy(update={"classes": data.classes or own})
        dataset = read_voc(root, split, data, keeps_extras=keeps_extras, known=known)
        return cityscapes.of_fog(dataset, data)
    if layout == "coco":
        return read_coco(root, split, data, keeps_extras=keeps_extras, known=known)
    if layout == "yolo":
        return yolo.read_yolo(root, split, data)
    read = kitti.read_kitti if layout == "kitti" else cityscapes.read_cityscapes
    return read(root, split, data, keeps_extras=keeps_extras)


def _read_unlabelled(root: Path, split: str, data: DetectionData) -> DetectionDataset:
    layout = _layout(root, data)
    if layout == "voc":
        return cityscapes.of_fog(read_voc_images(root, split, data), data)
    if layout == "coco":
        return read_coco_images(root, split, data)
    if layout == "yolo":
        return yolo.read_yolo_images(root, split, data)
    if layout == "kitti":
        return kitti.read_kitti_images(root, split, data)
    if layout != "images":
        return cityscapes.read_cityscapes_images(root, split, data)
    paths = list_images(root)
    records = tuple(unlabelled(path.name, path) for path in paths)
    dataset = DetectionDataset(name=root.name, classes=data.classes, records=records, has_labels=False)
    return dataset.noting(*left_out_note(root, paths))


def _filter_empty(dataset: DetectionDataset, root: Path, data: DetectionData, split: str) -> DetectionDataset:
    """Drop images without a box, as published code does: the one place where target labels are read."""
    labelled = drop_empty(_read_labelled(root, split, data))
    wanted = {record.path for record in labelled.records}
    kept = tuple(record for record in dataset.records if record.path in wanted)
    note = (
        f"TARGET LABELS WERE READ to leave out {len(dataset) - len(kept)} of {len(dataset)} images without boxes "
        "(data.filter_empty). For parity with published code only: results are not source-free in the strict sense"
    )
    return replace(dataset, records=kept).noting(note)


def existing_root(data: DetectionData) -> Path:
    """Find ``data.root``, a relative one also among the published data sets.

    Raises:
        ConfigError: It is not given.
        DataError: There is no such folder.
    """
    if data.root is None:
        raise ConfigError("data.root is empty. Give the folder of the data set.")
    tried = places(data.root)
    for folder in tried:
        if folder.is_dir():
            return folder
    near = _alike(data.root)
    meant = f"Did you mean '{near}'?" if near else "Correct data.root."
    looked = f" (nor is '{tried[1]}')" if len(tried) > 1 else ""
    raise DataError(f"'{data.root}' is not a folder{looked}. {meant}")


def _alike(folder: Path) -> Path | None:
    """Find the folder beside a missing one whose name resembles it."""
    if not folder.parent.is_dir():
        return None
    with os.scandir(folder.parent) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    near = difflib.get_close_matches(folder.name, names, n=1)
    return folder.with_name(near[0]) if near else None
