"""Cityscapes and Foggy Cityscapes: ``leftImg8bit[_foggy]/<split>/<city>/``, polygons in ``gtFine/<split>/<city>/``.

A box is the extent of a polygon, cut at the image's edge: corners of polygons may lie a few pixels beyond it. A polygon
of a group (``cargroup``) is a crowd region of its class. Only the eight classes with instances are objects; polygons of
other labels (road, sky) are told where polygons are kept.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vision_core.detection.datasets.checks import (
    check_class_names,
    check_label_files,
    check_repeated_boxes,
    checked_size,
    decoded,
)
from vision_core.detection.datasets.formats import CITYSCAPES, FOGGY_CITYSCAPES
from vision_core.detection.datasets.records import (
    ClassList,
    DetectionDataset,
    Extra,
    ImageRecord,
    LabelledBox,
    ReaderReport,
    unlabelled,
)
from vision_core.detection.settings import DetectionData
from vision_core.errors import ConfigError, DataError
from vision_core.files import parse_json
from vision_core.images.reading import list_files

CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
LABELS = "gtFine"
_POLYGONS = f"_{LABELS}_polygons.json"
_GROUP = "group"
_BETA = re.compile(r"_foggy_beta_([0-9.]+)$")
_FEWEST_CORNERS = 3


def read_cityscapes(root: Path, split: str, data: DetectionData, *, keeps_extras: bool = False) -> DetectionDataset:
    """Read a split of the published tree with its labels; the default classes are the eight with instances.

    With ``keeps_extras`` polygons are kept, cut at the image's edge, with their areas: as fields of COCO, which holds
    them.

    Raises:
        ConfigError: The fog is not chosen.
        DataError: Folders or labels have problems; the message has the first five and their number.
    """
    report = ReaderReport(data.on_bad_box, data.on_missing, keeps_extras=keeps_extras)
    images = _images(root, split, data)
    folder = root / LABELS / split
    if not folder.is_dir():
        remedy = "Foggy Cityscapes has the labels of Cityscapes: put its gtFine there" if data.fog_beta else "Unpack it"
        raise DataError(f"'{folder}' does not exist: the labels of '{split}'. {remedy}, or correct data.split.")
    labels = {path: folder / path.parent.name / f"{image_name(path)}{_POLYGONS}" for path in images}
    check_label_files(labels.values(), report)
    polygons = {path: _polygons(each) for path, each in labels.items() if each.is_file()}
    objects = {path: _objects(each) for path, each in polygons.items()}
    found = Counter(item.name for each in objects.values() for item in each)
    if images and not found:
        told = "holds no object, as the labels of 'test', which are not published, do"
        report.refuse(f"'{folder}' {told}. Set data.split or data.eval_split to 'val' or 'train'.")
    classes = ClassList(names=data.classes or CLASSES)
    check_class_names(classes.names, found, report)
    if keeps_extras:
        _tell_others(polygons, report)
    records = [_record(path, polygons[path], (objects[path], classes), report) for path in polygons]
    check_repeated_boxes(records, report)
    return report.dataset(f"{root.name}:{split}", classes.names, records, has_labels=True)


def read_cityscapes_images(root: Path, split: str, data: DetectionData) -> DetectionDataset:
    """Read a split of the published tree without opening labels; raises as ``read_cityscapes``."""
    records = [unlabelled(path.stem, path) for path in _images(root, split, data)]
    return ReaderReport(data.on_bad_box).dataset(f"{root.name}:{split}", data.classes, records, has_labels=False)


def image_name(path: Path) -> str:
    """Take what names kind of picture and fog off the name of an image: ``aachen_000000_000019``."""
    return _BETA.sub("", path.stem).removesuffix(f"_{CITYSCAPES}")


def of_fog(dataset: DetectionDataset, data: DetectionData) -> DetectionDataset:
    """Keep the images of one fog in a VOC list, as of the folders of published code, whose names end in it.

    A list of another format is as it is; images of several fogs in it are told.

    Raises:
        ConfigError: The fog is not chosen.
        DataError: A list of Foggy Cityscapes has clear images, or none of this fog; one of Cityscapes has foggy ones.
    """
    found = {record.image_id: _BETA.search(record.image_id) for record in dataset.records}
    fogs = {name: match[1] if match else "" for name, match in found.items()}
    if data.format != "foggy_cityscapes":
        return _told_fogs(dataset, Counter(fogs.values()), data.format)
    wanted = _chosen(data.fog_beta)
    if clear := [name for name, fog in fogs.items() if not fog]:
        told = f"'{dataset.name}' has '{len(clear)}' images without fog in their names (first '{clear[0]}')"
        raise DataError(f"{told}. Set data.format to 'voc', or data.split to a list of foggy images.")
    kept = tuple(each for each in dataset.records if float(fogs[each.image_id]) == wanted)
    if not kept:
        there = ", ".join(sorted(set(fogs.values())))
        raise DataError(f"'{dataset.name}' has no image of fog_beta '{wanted:g}'; there is {there}. Correct it.")
    left = len(dataset) - len(kept)
    note = [f"images of another fog than {wanted:g}, left out: {left} of {len(dataset)}"] if left else []
    return replace(dataset, records=kept).noting(*note)


def _told_fogs(dataset: DetectionDataset, counts: Counter[str], name: str) -> DetectionDataset:
    if not any(counts):
        return dataset
    listed = ", ".join(f"{fog or 'none'} ({counts[fog]})" for fog in sorted(counts))
    remedy = "data.format=foggy_cityscapes with data.fog_beta chooses one"
    if name == "cityscapes":
        raise DataError(f"'{dataset.name}' has images of these fogs: {listed}. Correct data.split; {remedy}.")
    return dataset.noting(f"SEVERAL FOGS: the images are of {listed}; {remedy}") if len(counts) > 1 else dataset


def _chosen(beta: float | None) -> float:
    if beta is None:
        raise ConfigError(
            "data.fog_beta is empty. Choose the fog: 0.005, 0.01 or 0.02. Scores of different fogs do not compare."
        )
    return beta


def _images(root: Path, split: str, data: DetectionData) -> list[Path]:
    is_foggy = data.format == "foggy_cityscapes"
    folder = root / (FOGGY_CITYSCAPES if is_foggy else CITYSCAPES) / split
    ending = f"_{FOGGY_CITYSCAPES}_beta_{_chosen(data.fog_beta):g}" if is_foggy else f"_{CITYSCAPES}"
    if not folder.is_dir():
        there = sorted(path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else []
        known = f"there is '{', '.join(there)}'" if there else f"'{root}' has no '{folder.parent.name}'"
        raise DataError(f"'{folder}' does not exist; {known}. Correct data.root, data.split or data.format.")
    cities = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [path for city in cities for path in list_files(city, lambda name: Path(name).stem.endswith(ending))]
    if not found:
        raise DataError(
            f"'{folder}' has no image '*{ending}.png' in a folder of a city. Correct data.root or data.fog_beta."
        )
    return found


def _polygons(path: Path) -> Mapping[str, Any]:
    try:
        content = parse_json(decoded(path))
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"'{path}' is no JSON of Cityscapes: {error}. Copy it again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise DataError(f"'{path}' has no list 'objects'. Copy it again, or correct data.format.")
    try:
        shaped = [
            (str(each["label"]), [(float(x), float(y)) for x, y in each["polygon"]]) for each in content["objects"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"'{path}' has an object without label or polygon ({error}). Copy it again.") from error
    deleted = [bool(each.get("deleted", 0)) for each in content["objects"]]
    kept = [each for each, is_deleted in zip(shaped, deleted, strict=True) if not is_deleted]
    return {"objects": kept, "size": (content.get("imgHeight"), content.get("imgWidth"))}


def _objects(content: Mapping[str, Any]) -> list[LabelledBox]:
    found = []
    for label, corners in content["objects"]:
        name = label.removesuffix(_GROUP)
        if name in CLASSES and len(corners) >= _FEWEST_CORNERS:
            xs, ys = ([corner[axis] for corner in corners] for axis in (0, 1))
            box = min(xs), min(ys), max(xs), max(ys)
            extra = {"coco": {"segmentation": corners}}
            found.append(LabelledBox(name=name, box=box, is_crowd=label != name, extra=extra))
    return found


def _tell_others(polygons: Mapping[Path, Mapping[str, Any]], report: ReaderReport) -> None:
    labels = [label for content in polygons.values() for label, _ in content["objects"]]
    others = Counter(label for label in labels if label.removesuffix(_GROUP) not in CLASSES)
    if others:
        told = ", ".join(sorted(others))
        report.note(f"polygons of labels without instances, which stay in the source: {others.total()} ({told})")


def _segmentation(corners: Sequence[tuple[float, float]], size: tuple[int, int] | None) -> Extra:
    """Make fields of COCO of a polygon, cut at the edge of an image ``(height, width)``."""
    points = np.asarray(corners, dtype=np.float64)
    if size is not None:
        points = points.clip(0, (size[1], size[0]))
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, axis=0).T
    area = abs(float((x * next_y - next_x * y).sum())) / 2
    return {"coco": {"segmentation": [points.ravel().tolist()], "area": round(area, 4)}}


def _record(
    path: Path, content: Mapping[str, Any], labels: tuple[list[LabelledBox], ClassList], report: ReaderReport
) -> ImageRecord:
    (height, width), (objects, classes) = content["size"], labels
    declared = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    size = checked_size(path, declared, report)
    kept = []
    for item in classes.keep(objects, path.stem, report):
        left, top, right, bottom = item.box
        edge = (float(size[0]), float(size[1])) if size else (bottom, right)
        inside = (max(left, 0.0), max(top, 0.0), min(right, edge[1]), min(bottom, edge[0]))
        box = report.check_box(inside, size, image_name(path))
        extra = _segmentation(item.extra["coco"]["segmentation"], size) if report.keeps_extras else {}
        kept += [replace(item, box=box, extra=extra)] if box is not None else []
    return classes.record(path.stem, path, kept, size)
