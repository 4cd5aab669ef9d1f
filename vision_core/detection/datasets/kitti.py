"""KITTI's object detection: ``training/image_2/<id>.png``, ``training/label_2/<id>.txt``; lists in ``ImageSets/``.

A line is ``type truncated occluded alpha left top right bottom`` and seven numbers of the box in space. Types are read
in lower case. ``DontCare`` is a crowd region of every class: neither a training target nor right or wrong. The
benchmark's own rules (sizes, occlusion, vans beside cars) are not applied.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vision_core.detection.datasets.checks import (
    bare_name,
    check_class_names,
    check_label_files,
    check_missing,
    check_repeated_boxes,
    checked_size,
    decoded,
    without_repeats,
)
from vision_core.detection.datasets.formats import KITTI_IMAGES
from vision_core.detection.datasets.records import (
    ClassList,
    DetectionDataset,
    ImageRecord,
    LabelledBox,
    ReaderReport,
    unlabelled,
)
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError
from vision_core.images.reading import list_images

CLASSES = ("car", "van", "truck", "pedestrian", "person_sitting", "cyclist", "tram", "misc")
LABELS = "label_2"
_ALL = ("training", "trainval")  # splits that are all labelled images
_IGNORED = "dontcare"
_COLUMNS, _SCORE_COLUMNS = 15, 16
_BOX = slice(4, 8)
_OTHERS = {"truncated": slice(1, 2), "occluded": slice(2, 3), "alpha": slice(3, 4), "box in space": slice(8, 15)}


def read_kitti(root: Path, split: str, data: DetectionData, *, keeps_extras: bool = False) -> DetectionDataset:
    """Read a list, or all of ``training``, with its labels; the default classes are the eight types.

    With ``keeps_extras`` the other columns of each object are kept as they are written.

    Raises:
        DataError: Folders, list or labels have problems; the message has the first five and their number.
    """
    if split == "testing":
        raise DataError(
            "The labels of KITTI's 'testing' are not published. Set data.split to 'training', or to a list."
        )
    report = ReaderReport(data.on_bad_box, data.on_missing, keeps_extras=keeps_extras)
    images = _images(root, split, report)
    folder = images[0].parent.with_name(LABELS)
    labels = {path: folder / f"{path.stem}.txt" for path in images}
    check_label_files(labels.values(), report)
    objects = {path: _read_labels(each, report) for path, each in labels.items() if each.is_file()}
    found = Counter(item.name for each in objects.values() for item in each if item.name != _IGNORED)
    classes = ClassList(names=data.classes or CLASSES)
    check_class_names(classes.names, found, report)
    if found and not found.keys() & set(classes.names):
        told = f"no object is of the classes '{', '.join(classes.names)}'; the files name '{', '.join(sorted(found))}'"
        report.refuse(f"'{folder}': {told}. Correct data.classes.")
    records = [_record(path, each, classes, report) for path, each in objects.items()]
    check_repeated_boxes(records, report)
    return report.dataset(f"{root.name}:{split}", classes.names, records, has_labels=True)


def read_kitti_images(root: Path, split: str, data: DetectionData) -> DetectionDataset:
    """Read a list, or all of ``training`` or ``testing``, without opening labels; raises as ``read_kitti``."""
    report = ReaderReport(data.on_bad_box)
    records = [unlabelled(path.stem, path) for path in _images(root, split, report)]
    return report.dataset(f"{root.name}:{split}", data.classes, records, has_labels=False)


def _images(root: Path, split: str, report: ReaderReport) -> list[Path]:
    part = "testing" if split == "testing" else "training"
    folder = next((each for each in (root / part / KITTI_IMAGES, root / KITTI_IMAGES) if each.is_dir()), None)
    if folder is None:
        raise DataError(f"'{root / part / KITTI_IMAGES}' does not exist. Correct data.root or data.format.")
    images = list_images(folder)
    listings = [each / "ImageSets" / f"{split}.txt" for each in (root, folder.parent)]
    listing = next((each for each in listings if each.is_file()), None)
    if listing is None and split not in {*_ALL, "testing"}:
        known = ", ".join(sorted({path.stem for each in listings for path in each.parent.glob("*.txt")} | set(_ALL)))
        raise DataError(f"'{listings[0]}' does not exist; there is '{known}'. Correct data.split.")
    if listing is None:
        return images
    lines = [line.strip() for line in decoded(listing).splitlines() if line.strip()]
    wanted = without_repeats(map(bare_name, lines), f"'{listing}'", report)
    by_stem = {path.stem: path for path in images}
    check_missing([name for name in wanted if name not in by_stem], len(wanted), (path.name for path in images), report)
    found = [by_stem[name] for name in wanted if name in by_stem]
    if not found:
        raise DataError([*report.problems] or [f"'{listing}' lists no image. Write one id a line."])
    return found


def _read_labels(path: Path, report: ReaderReport) -> list[LabelledBox]:
    found = []
    for number, line in enumerate(decoded(path).splitlines(), start=1):
        if not (columns := line.split()):
            continue
        box = _box(columns)
        if box is None:
            told = "detections with a score" if len(columns) == _SCORE_COLUMNS else f"{len(columns)} columns"
            report.refuse(f"'{path}' line {number} has {told}, not the {_COLUMNS} of a label. Correct it.")
            continue
        name = columns[0].lower()
        has_others = report.keeps_extras and name != _IGNORED  # where they are -1 and -10
        others = {field: " ".join(columns[place]) for field, place in _OTHERS.items()} if has_others else {}
        extra = {"kitti": others} if others else {}
        found.append(LabelledBox(name=name, box=box, is_crowd=name == _IGNORED, extra=extra))
    return found


def _box(columns: Sequence[str]) -> tuple[float, float, float, float] | None:
    try:
        left, top, right, bottom = (float(each) for each in columns[_BOX])
    except ValueError:
        return None
    return (left, top, right, bottom) if len(columns) == _COLUMNS else None


def _record(path: Path, objects: Sequence[LabelledBox], classes: ClassList, report: ReaderReport) -> ImageRecord:
    size = checked_size(path, None, report)
    ignored = [replace(item, name=name) for item in objects if item.name == _IGNORED for name in classes.names]
    named = classes.keep([item for item in objects if item.name != _IGNORED], path.stem, report)
    kept = []
    for item in (*named, *ignored):
        box = report.check_box(item.box, size, f"{path.stem}.txt")
        kept += [replace(item, box=box)] if box is not None else []
    return classes.record(path.stem, path, kept, size)
