"""Checks of labelled lists that the readers of all formats ask: files, names of classes, sizes, boxes."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import TypeVar

import numpy as np

from vision_core.detection.datasets.records import ImageRecord, ReaderReport
from vision_core.errors import NUM_EXAMPLES, DataError, Finding, InputError
from vision_core.evaluation.class_names import (
    are_near,
    are_variants,
    folded,
    missing_value_problems,
    variant_problems,
)
from vision_core.evaluation.class_names import near_name as near_name
from vision_core.images.reading import FIRST_TURNED, IMAGE_SUFFIXES, size_and_orientation

_Image = TypeVar("_Image", str, Path)
_TOLERATED_PX = 1
_SCALED_ALIKE_PX = 2  # difference of height and width that rounding explains
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def decoded(path: Path) -> str:
    """Read a text file in UTF-8 or UTF-16, with or without a byte order mark.

    Raises:
        DataError: It is in another encoding.
    """
    data = path.read_bytes()
    try:
        if data.startswith(_UTF16):
            return data.decode("utf-16")
        if b"\0" in data[:2]:
            return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = data[error.start : error.start + 1].hex()
        raise DataError(
            f"'{path}' is not text in UTF-8: byte '0x{found}' at '{error.start}'. Save it in UTF-8."
        ) from error


def bare_name(name: str) -> str:
    """Take folders and the suffix of an image or annotation off a name."""
    last = PureWindowsPath(name).name
    return str(Path(last).with_suffix("")) if Path(last).suffix.lower() in {*IMAGE_SUFFIXES, ".xml"} else last


def check_missing(missing: Sequence[str], listed: int, present: Iterable[str], report: ReaderReport) -> None:
    """Refuse listed images that are not there, or leave them out and say so.

    Args:
        missing: Their names in the list.
        listed: Images in the list.
        present: Names of the images in the folder; one that differs in case, suffix or folder alone is told.
        report: Its ``on_missing`` decides.
    """
    if not missing:
        return
    there = {folded(bare_name(name)): name for name in present}
    near = ((name, there.get(folded(bare_name(name)))) for name in missing)
    hint = next((f"; '{name}' is there as '{other}'" for name, other in near if other), "")
    more = ", ..." if len(missing) > NUM_EXAMPLES else ""
    told = f"'{len(missing)}' of '{listed}' listed images are missing: {', '.join(missing[:NUM_EXAMPLES])}{more}{hint}"
    if report.on_missing == "refuse" or len(missing) == listed:
        if len(missing) == listed:
            report.refuse(f"{told}. Correct the list, the names or data.root.")
        else:
            remedy = "Correct the list, the names or data.root, or set data.on_missing to 'skip' to leave them out."
            report.ask(f"{told}. {remedy}")
    else:
        report.note(f"IMAGES MISSING: {told}. They are left out")
        report.left_out["images missing"] += len(missing)


def check_label_files(paths: Iterable[Path], report: ReaderReport) -> None:
    """Refuse a list with images that have no label file."""
    labels = list(paths)
    if missing := [path for path in labels if not path.is_file()]:
        told = f"'{len(missing)}' of '{len(labels)}' images have no label file (first '{missing[0]}')"
        report.refuse(f"{told}. Unpack the labels again, or correct data.root.")


def without_repeats(images: Iterable[_Image], what: str, report: ReaderReport) -> list[_Image]:
    """Refuse a list that names an image more than once; returns each once.

    Args:
        images: Paths or ids.
        what: The list, for the message.
        report: Receives the problem.
    """
    counts = Counter(images)
    if repeated := [each for each, count in counts.items() if count > 1]:
        others = f", and '{len(repeated) - 1}' others" if len(repeated) > 1 else ""
        report.refuse(f"{what} lists '{repeated[0]}' more than once{others}. Remove the repetition.")
    return list(counts)


def check_repeated_files(paths: Iterable[tuple[str, Path]], report: ReaderReport) -> None:
    """Refuse an image file that is listed under two ids."""
    first: dict[Path, str] = {}
    for image_id, path in paths:
        other = first.setdefault(path.resolve(), image_id)
        if other != image_id:
            report.refuse(f"'{path}' is listed twice, as '{other}' and as '{image_id}'. Keep one of them.")


def check_class_names(
    classes: Sequence[str], found: Mapping[str, int], report: ReaderReport, known: Collection[str] = ()
) -> None:
    """Refuse classes whose objects bear a near name in the files.

    Args:
        classes: Names that the data set is read with.
        found: Objects by name in the files.
        report: Receives the problems.
        known: Names of other classes, which are misspellings of none.
    """
    others = [name for name, count in found.items() if count and name not in classes and name not in known]
    for name in classes:
        is_alike = are_variants if found.get(name) else are_near
        for other in (other for other in others if is_alike(name, other)):
            report.refuse(
                f"'{found[other]}' objects are of '{other}' and '{found.get(name, 0)}' of the class '{name}'. If they "
                "are one, give it one name, in the files or in data.classes."
            )


def check_own_names(classes: Sequence[str], found: Mapping[str, int], report: ReaderReport) -> None:
    """Check the names of the files where data.classes is empty.

    Refuse those that differ in case, blanks or hyphens alone, and objects of a name that stands for a missing value;
    tell names without an object, as some tools write one above all others.
    """
    for problem in (*variant_problems(classes, "the files"), *missing_value_problems(found, (), "objects")):
        report.refuse(problem)
    for name in (name for name in classes if not found.get(name)):
        report.note("names without an object in this list, which are classes all the same (data.classes chooses)", name)


def checked_size(path: Path, declared: tuple[int, int] | None, report: ReaderReport) -> tuple[int, int] | None:
    """Compare the size in an image's header with the one that its labels declare.

    Returns:
        ``(height, width)`` of the image as it is read; None where it is not known, or contradicts the labels.
    """
    try:
        actual, orientation = size_and_orientation(path)
    except InputError:
        report.note("images with an unreadable header", path.name)
        return declared
    is_turned = orientation >= FIRST_TURNED
    if orientation > 1 and (declared is None or not is_turned or actual == actual[::-1]):
        report.note("photos that EXIF turns or mirrors; their boxes are read as of the image as it is shown", path.name)
    if declared is None:
        return actual
    difference = max(abs(one - other) for one, other in zip(actual, declared, strict=True))
    if difference > _TOLERATED_PX:
        (height, width), (labels_height, labels_width) = actual, declared
        report.refuse(
            f"'{path}' is '{width} x {height}' px, its labels say '{labels_width} x {labels_height}' (width x height): "
            f"{_explain_size(actual, declared, is_turned=is_turned)}"
        )
        return None
    if difference:
        report.note("images a pixel larger or smaller than their labels say", path.name)
    return actual


def stated_px(value: object) -> int:
    """Read a stated width or height, also one that is text; 0 where there is none."""
    try:
        number = float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return 0
    return round(number) if math.isfinite(number) and number > 0 else 0


def check_scale(largest: float, boxes: int, report: ReaderReport) -> None:
    """Refuse boxes that are all numbers from 0 to 1.

    Args:
        largest: The largest number of all boxes in the files.
        boxes: How many there are.
        report: Receives the problem, as the first.
    """
    if boxes and 0 < largest <= 1:
        told = f"the numbers of all '{boxes}' boxes lie within 0 and 1 (largest '{largest:g}'): these look normalised"
        report.found.insert(0, Finding(severity="refuse", text=f"{told}. Write them in pixels."))


def check_repeated_boxes(records: Sequence[ImageRecord], report: ReaderReport) -> None:
    """Refuse labels that are listed twice; tell a few repeated boxes."""
    repeated: Counter[str] = Counter()
    for record in (record for record in records if len(record.boxes) > 1):
        rows = np.column_stack([record.labels, record.boxes])[~record.crowd]
        if extra := len(rows) - len(np.unique(rows, axis=0)):
            repeated[record.path.name] = extra
    total, boxes = repeated.total(), sum(len(record.boxes) for record in records)
    if not total:
        return
    told = f"'{total}' of '{boxes}' boxes repeat another of the same class and image ({', '.join(list(repeated)[:3])})"
    if 2 * total >= boxes:
        report.refuse(f"{told}: the labels are listed twice. Remove one of the two.")
    else:
        report.note(f"BOXES LISTED TWICE: {told}. They are kept; each counts in training and score")


def _explain_size(actual: tuple[int, int], declared: tuple[int, int], *, is_turned: bool) -> str:
    if actual == declared[::-1] and is_turned:
        return (
            "its EXIF orientation turns it, and the labels are of the image as stored. Remove the orientation from the "
            "file, or label it as it is shown."
        )
    if actual == declared[::-1]:
        return "width and height are exchanged. Exchange them in the labels, and see whether the boxes fit."
    scales = [one / other for one, other in zip(actual, declared, strict=True)]
    if abs(scales[0] - scales[1]) * max(*declared) < _SCALED_ALIKE_PX:
        return f"it was scaled by {scales[0]:.3g} after labelling. Scale the labels too, or give the original images."
    return "the labels are of another image. Give the images that were labelled, or correct the labels."
