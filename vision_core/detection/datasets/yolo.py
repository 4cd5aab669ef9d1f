"""YOLO data sets: ``data.yaml``, images, and a label file for each image.

A line of a label file is ``class x y width height``: the number of a class in ``names``, then centre and size of a box
as shares of the image's width and height. The label file of ``images/train/a.jpg`` is ``labels/train/a.txt``; where no
folder is called ``images`` it lies beside its image. An empty label file is an image of background; an image without
one is unlabelled, and left out where labels are read.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from vision_core.config.strict_yaml import load_yaml
from vision_core.detection.datasets.checks import (
    check_class_names,
    check_missing,
    check_own_names,
    check_repeated_boxes,
    check_repeated_files,
    checked_size,
    decoded,
    near_name,
    without_repeats,
)
from vision_core.detection.datasets.formats import YOLO_INDEX
from vision_core.detection.datasets.records import (
    Box,
    ClassList,
    DetectionDataset,
    ImageRecord,
    LabelledBox,
    ReaderReport,
    size_of,
    unlabelled,
)
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError
from vision_core.evaluation.class_names import written_name
from vision_core.images.reading import is_image_name, list_files

_OTHER_KEYS = {"path", "names", "nc", "download", "kpt_shape", "flip_idx", "channels"}
_COLUMNS = 5
_SCORE_COLUMNS = 6
_ROUNDING = 1e-3  # of shares above 1 or below 0 that rounding explains
_DIGITS = 3  # of pixels: what a share of nine digits is sure of


def read_yolo(root: Path, split: str, data: DetectionData) -> DetectionDataset:
    """Read a split with its labels; the default classes are ``names``, in their order.

    Raises:
        DataError: Index, list or labels have problems; the message has the first five and their number.
    """
    report = ReaderReport(data.on_bad_box, data.on_missing)
    index = _index(root)
    names = _names(index, root / YOLO_INDEX)
    sizes, objects = {}, {}
    for path in _listed_images(root, split, index, report):
        labels = label_path(path, root)
        if not labels.is_file():
            told = "images without a label file, which are unlabelled and left out (an empty file is background)"
            report.leave_out("images without labels", told, path.name)
            continue
        size = checked_size(path, None, report)
        if size is None and data.on_corrupt == "skip":
            report.leave_out("images corrupt", "images without a readable header, left out", path.name)
        elif size is None:
            report.refuse(f"'{path}' has no readable header, and its boxes no size in pixels. Mend it, or take it out.")
        else:
            sizes[path], objects[path] = size, _read_labels(labels, names, size, report)
    if not sizes and not report.problems:
        report.refuse(
            f"'{root}': no image of '{split}' has a label file. Correct data.root, or make the folder 'labels'."
        )
    found = Counter(item.name for each in objects.values() for item in each)
    classes = ClassList(names=data.classes or names)
    _check_names(classes.names, data, {**dict.fromkeys(names, 0), **found}, report)
    ids = _image_ids(list(sizes), root)
    records = [_record(ids[path], path, (objects[path], sizes[path]), (classes, report)) for path in sizes]
    check_repeated_boxes(records, report)
    return report.dataset(f"{root.name}:{split}", classes.names, records, has_labels=True)


def read_yolo_images(root: Path, split: str, data: DetectionData) -> DetectionDataset:
    """Read a split without opening a label file.

    Raises:
        DataError: As for ``read_yolo``.
    """
    report = ReaderReport(data.on_bad_box)
    paths = _listed_images(root, split, _index(root), report)
    ids = _image_ids(paths, root)
    records = [unlabelled(ids[path], path) for path in paths]
    return report.dataset(f"{root.name}:{split}", data.classes, records, has_labels=False)


def label_path(image: Path, root: Path) -> Path:
    """Find the place of an image's label file: ``labels`` for the last folder ``images`` of its path."""
    parts = list(image.relative_to(root).with_suffix(".txt").parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return root.joinpath(*parts)


def write_yolo(folder: Path, split: str, dataset: DetectionDataset, names: Sequence[str]) -> None:
    """Write a split's label files and list, and ``data.yaml``; crowd regions, which it lacks, are left out.

    Args:
        folder: Of the data set, which is being made: nothing is written atomically.
        split: Name of the list; those written before stay in ``data.yaml``.
        dataset: The records.
        names: Their image files in ``images/<split>``.
    """
    labels = folder / "labels" / split
    labels.mkdir(parents=True)
    for record, name in zip(dataset.records, names, strict=True):
        height, width = size_of(record)
        shown = ~record.crowd
        text = ""
        for (left, top, right, bottom), label in zip(
            record.boxes[shown].astype(float).tolist(), record.labels[shown].tolist(), strict=True
        ):
            centre = (left + right) / 2 / width, (top + bottom) / 2 / height
            shares = (*centre, (right - left) / width, (bottom - top) / height)
            text += f"{label} {' '.join(f'{share:.9f}' for share in shares)}\n"
        (labels / f"{Path(name).stem}.txt").write_text(text, encoding="utf-8")
    # A list, since a folder does not hold the order of its files.
    listed = "".join(f"./images/{split}/{name}\n" for name in names)
    (folder / f"{split}.txt").write_text(listed, encoding="utf-8")
    before = _index(folder) if (folder / YOLO_INDEX).is_file() else {}
    before.pop("names", None)
    content = {**before, split: f"{split}.txt", "names": dict(enumerate(dataset.classes))}
    (folder / YOLO_INDEX).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _index(root: Path) -> dict[str, Any]:
    path = root / YOLO_INDEX
    if not path.is_file():
        others = ", ".join(sorted(each.name for each in root.glob("*.y*ml")))
        there = f"there is '{others}': rename it" if others else "write one, with 'names' and the splits"
        raise DataError(f"'{path}' does not exist; {there}. Or correct data.root or data.format.")
    try:
        content = load_yaml(decoded(path), other_keys=True)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"'{path}' is not YAML: {' '.join(str(error).split())}. Correct it.") from error
    if not isinstance(content, dict) or "names" not in content:
        raise DataError(f"'{path}' has no 'names'. List the names of the classes there.")
    return {str(key): value for key, value in content.items()}


def _names(index: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Read ``names``: a list, or a mapping of the numbers from 0 on."""
    names = index["names"]
    if isinstance(names, dict):
        numbers = {str(key): value for key, value in names.items()}
        expected = [str(number) for number in range(len(numbers))]
        if sorted(numbers, key=expected.index if set(numbers) == set(expected) else None) != expected:
            raise DataError(f"'{path}': names has the numbers '{', '.join(numbers)}', not 0, 1, 2, ... Number them so.")
        names = [numbers[number] for number in expected]
    is_list = isinstance(names, list) and all(isinstance(each, str | int) for each in names) and names
    if not is_list or any(isinstance(each, bool) for each in names):
        raise DataError(
            f"'{path}': names is '{names}', no list of names. Write texts, in quotes where YAML needs them."
        )
    found = tuple(written_name(str(each)) for each in names)
    if repeated := [name for name, count in Counter(found).items() if count > 1]:
        raise DataError(f"'{path}': names has '{repeated[0]}' twice. Merge the two.")
    if isinstance(index.get("nc"), int) and index["nc"] != len(found):
        raise DataError(f"'{path}': nc is '{index['nc']}', and there are {len(found)} names. Correct one of the two.")
    return found


def _check_names(names: tuple[str, ...], data: DetectionData, found: Mapping[str, int], report: ReaderReport) -> None:
    if data.classes:
        check_class_names(names, found, report)
    else:
        check_own_names(names, found, report)
    if not found.keys() & set(names):
        told = f"no class of the files ('{', '.join(found)}') is of the classes '{', '.join(names)}'"
        report.refuse(f"{told}. Correct data.classes.")


def _listed_images(root: Path, split: str, index: Mapping[str, Any], report: ReaderReport) -> list[Path]:
    """List the images of a split: those of a folder and all below it, or of a text file."""
    entry = index.get(split) if split not in _OTHER_KEYS else None
    entries = entry if isinstance(entry, list) else [entry or f"images/{split}"]
    base = root / str(index.get("path") or ".")
    found: list[Path] = []
    for each in map(str, entries):
        place = _place(root, base, each)
        if place is None:
            splits = [key for key, value in index.items() if key not in _OTHER_KEYS and isinstance(value, str | list)]
            known = (
                f" '{YOLO_INDEX}' names the splits '{', '.join(splits)}'. {near_name(split, splits)}" if splits else ""
            )
            raise DataError(f"'{root / each}' does not exist. Correct data.root or data.split.{known}")
        found += _images_below(place) if place.is_dir() else _images_of_list(place, root, base, report)
    inside = root.resolve()
    if outside := [path for path in found if not path.resolve().is_relative_to(inside)]:
        raise DataError(
            f"'{outside[0]}' lies outside '{root}'. Give the folder that holds images and labels as data.root."
        )
    found = without_repeats(found, f"'{YOLO_INDEX}': '{split}'", report)
    check_repeated_files(((path.relative_to(root).as_posix(), path) for path in found), report)
    if not found and not report.problems:
        raise DataError(f"'{root}': '{split}' has no image. Correct data.root or data.split.")
    return found


def _place(root: Path, base: Path, entry: str) -> Path | None:
    """Find what an entry of the index names; some tools write it as seen from a folder beside the index."""
    tried = (base / entry, root / entry, root / entry.removeprefix("../"), root / "images" / entry)
    return next((path for path in tried if path.exists()), None)


def _images_below(folder: Path) -> list[Path]:
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    return [path for each in folders for path in list_files(each, is_image_name)]


def _images_of_list(listing: Path, root: Path, base: Path, report: ReaderReport) -> list[Path]:
    lines = [line.strip() for line in decoded(listing).splitlines() if line.strip()]
    found, missing = [], []
    for line in lines:
        name = PurePosixPath(line.replace("\\", "/"))
        path = next((each / name for each in (listing.parent, base, root) if (each / name).is_file()), None)
        found += [path] if path else []
        missing += [] if path else [line]
    beside = {(listing.parent / Path(line)).parent for line in missing[:1]}
    present = [path.name for folder in beside if folder.is_dir() for path in folder.iterdir()]
    check_missing(missing, len(lines), present, report)
    return found


def _image_ids(paths: Sequence[Path], root: Path) -> dict[Path, str]:
    """Name each image by its stem, or by its path where stems repeat."""
    stems = Counter(path.stem for path in paths)
    whole = {path: path.relative_to(root).with_suffix("").as_posix() for path in paths}
    ids = {path: path.stem if stems[path.stem] == 1 else whole[path] for path in paths}
    if twice := [name for name, count in Counter(ids.values()).items() if count > 1]:
        raise DataError(f"two images are called '{twice[0]}' and would share one label file. Rename one.")
    return ids


def _read_labels(path: Path, names: tuple[str, ...], size: tuple[int, int], report: ReaderReport) -> list[LabelledBox]:
    found = []
    for number, line in enumerate(decoded(path).splitlines(), start=1):
        if not (columns := line.split()):
            continue
        fault = _fault(line, columns, names)
        if fault:
            report.refuse(f"'{path}' line {number}: {fault}")
        else:
            box = _in_pixels([float(column) for column in columns[1:]], size)
            found.append(LabelledBox(name=names[int(columns[0])], box=box))
    return found


def _fault(line: str, columns: Sequence[str], names: Sequence[str]) -> str:
    """Find what is wrong with a line; empty for nothing."""
    if "," in line:
        return f"'{line.strip()[:40]}' has commas. Separate the five numbers by blanks."
    if len(columns) == _SCORE_COLUMNS:
        return "has 6 numbers, as detections with a score have. Give labels, of 5."
    if len(columns) > _SCORE_COLUMNS and len(columns) % 2:
        return f"has {len(columns)} numbers: a polygon of segmentation labels. Export boxes, of 5."
    if len(columns) != _COLUMNS:
        return f"has {len(columns)} columns, not class, x, y, width, height. Correct it."
    if not columns[0].isdecimal() or int(columns[0]) >= len(names):
        return f"has the class '{columns[0]}'; '{YOLO_INDEX}' names {len(names)}, from 0 on. Correct one of the two."
    try:
        shares = [float(column) for column in columns[1:]]
    except ValueError:
        return f"'{line.strip()[:40]}' is not made of numbers. Correct it."
    if not all(math.isfinite(share) and -_ROUNDING <= share <= 1 + _ROUNDING for share in shares):
        return (
            f"has '{' '.join(columns[1:])}', not all within 0 and 1: shares of width and height. Divide pixels by them."
        )
    return ""


def _in_pixels(shares: Sequence[float], size: tuple[int, int]) -> Box:
    height, width = size
    x, y, wide, high = shares
    corners = (x - wide / 2) * width, (y - high / 2) * height, (x + wide / 2) * width, (y + high / 2) * height
    left, top, right, bottom = (round(corner, _DIGITS) for corner in corners)
    return left, top, right, bottom


def _record(
    image_id: str, path: Path, labels: tuple[list[LabelledBox], tuple[int, int]], rules: tuple[ClassList, ReaderReport]
) -> ImageRecord:
    (objects, size), (classes, report) = labels, rules
    kept = [
        replace(item, box=box)
        for item in classes.keep(objects, path.stem, report)
        if (box := report.check_box(item.box, size, f"{path.stem}.txt")) is not None
    ]
    return classes.record(image_id, path, kept, size)
