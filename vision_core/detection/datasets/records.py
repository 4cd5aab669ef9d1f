"""Records of labelled images, and checks of labels of all formats."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import DataError

NUM_EXAMPLES = 5
_TOLERATED_PX = 1.0

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image and its labels.

    Attributes:
        image_id: Unique in the data set.
        path: The image file.
        boxes: ``(M, 4)`` float32, ``xyxy`` in pixels.
        labels: ``(M,)`` int64, index into the classes of the data set.
        difficult: ``(M,)`` bool; training uses these boxes, metrics ignore them.
        crowd: ``(M,)`` bool; regions of many objects: no training targets, ignored by metrics.
        size: ``(height, width)`` in pixels, None where it is not known yet.
    """

    image_id: str
    path: Path
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    size: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class DetectionDataset:
    """A list of images and labels, such as one split.

    Attributes:
        name: Folder and split, for messages and reports.
        classes: Names in the order of the labels.
        records: The images.
        notes: Lines for the user: boxes dropped, images missing, the map of category numbers.
        has_labels: Whether annotations were read; without them the arrays of the records are empty.
        left_out: Numbers by plural noun of what the files list and the records lack; they stand beside every score.
    """

    name: str
    classes: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    notes: tuple[str, ...]
    has_labels: bool
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, kw_only=True)
class LabelledBox:
    """One object of an annotation, of any class."""

    name: str
    box: Box
    is_difficult: bool = False
    is_crowd: bool = False


@dataclass
class ReaderReport:
    """Findings of a reader of annotations.

    Attributes:
        on_bad_box: Whether a box without area or off the image is a problem, or is dropped.
        on_missing: Whether a listed image that is missing is a problem, or is left out.
        problems: Faults; any refuses the data set.
        remarks: Notes for the user.
        occurrences: Further notes, each with the places where it applies.
        left_out: Numbers of what is left out, as in ``DetectionDataset``.
    """

    on_bad_box: Literal["refuse", "drop"]
    on_missing: Literal["refuse", "skip"] = "skip"
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    occurrences: dict[str, list[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def note(self, message: str, where: str) -> None:
        """Count ``message`` once more; the first places are shown as examples."""
        self.occurrences.setdefault(message, []).append(where)

    def leave_out(self, what: str, message: str, where: str) -> None:
        """Count one more of ``what`` as left out, and note it."""
        self.left_out[what] += 1
        self.note(message, where)

    def dataset(
        self, name: str, classes: tuple[str, ...], records: Sequence[ImageRecord], *, has_labels: bool
    ) -> DetectionDataset:
        """Build the data set with its notes, unless there were problems.

        Raises:
            DataError: The first five problems, and how many there are.
        """
        if self.problems:
            raise DataError(_first_problems(self.problems, name))
        counted = [f"{note}: {len(places)} ({_examples(places)})" for note, places in self.occurrences.items()]
        notes = (*self.remarks, *counted)
        return DetectionDataset(
            name=name,
            classes=classes,
            records=tuple(records),
            notes=notes,
            has_labels=has_labels,
            left_out=dict(self.left_out),
        )

    def check_box(self, box: Box, size: tuple[int, int] | None, where: str) -> Box | None:
        """Check a box and clip it to the image by at most a pixel.

        Returns:
            The box; None where it is refused or dropped.
        """
        fault = _fault(box, size)
        if fault is None:
            clipped = box if size is None else _clip(box, size)
            if clipped != box:
                self.note("boxes cut at the image's edge (by one pixel at most)", where)
            return clipped
        if self.on_bad_box == "drop":
            self.leave_out("boxes dropped", "boxes dropped (without area, or off the image)", where)
        else:
            corners = ", ".join(f"{corner:g}" for corner in box)
            self.problems.append(
                f"'{where}': box '({corners})' {fault}. Correct the label, or set data.on_bad_box to 'drop'."
            )
        return None


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """Classes that a data set is read with; objects of other classes are dropped."""

    names: tuple[str, ...]

    def keep(self, objects: Sequence[LabelledBox], where: str, report: ReaderReport) -> list[LabelledBox]:
        """Keep the objects of these classes and note the others."""
        for item in objects:
            if item.name not in self.names:
                told = f"objects of class '{item.name}', not in data.classes, dropped"
                report.leave_out("objects of other classes", told, where)
        return [item for item in objects if item.name in self.names]

    def record(
        self, image_id: str, path: Path, objects: Sequence[LabelledBox], size: tuple[int, int] | None
    ) -> ImageRecord:
        """Build the record of one image from objects of these classes."""
        index = {name: label for label, name in enumerate(self.names)}
        return ImageRecord(
            image_id=image_id,
            path=path,
            boxes=np.array([item.box for item in objects], dtype=np.float32).reshape(-1, 4),
            labels=np.array([index[item.name] for item in objects], dtype=np.int64),
            difficult=np.array([item.is_difficult for item in objects], dtype=np.bool_),
            crowd=np.array([item.is_crowd for item in objects], dtype=np.bool_),
            size=size,
        )


def unlabelled(image_id: str, path: Path) -> ImageRecord:
    """Build a record without labels, for adaptation."""
    return ClassList(names=()).record(image_id, path, (), None)


def _fault(box: Box, size: tuple[int, int] | None) -> str | None:
    left, top, right, bottom = box
    if not np.isfinite(box).all():
        return "is not made of finite numbers"
    if right <= left or bottom <= top:
        return f"has no area: it is '{right - left:g}' px wide and '{bottom - top:g}' px high"
    if size is None:
        return None
    beyond = max(-left, -top, right - size[1], bottom - size[0])
    if beyond > _TOLERATED_PX or left >= size[1] or top >= size[0] or right <= 0 or bottom <= 0:
        return f"leaves the image of {size[1]} x {size[0]} px by '{beyond:g}' px"
    return None


def _clip(box: Box, size: tuple[int, int]) -> Box:
    height, width = size
    return (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))


def _first_problems(problems: Sequence[str], name: str) -> list[str]:
    if len(problems) <= NUM_EXAMPLES:
        return list(problems)
    total = f"'{name}' has '{len(problems)}' problems in all; the first {NUM_EXAMPLES} are listed. Correct them."
    return [*problems[:NUM_EXAMPLES], total]


def _examples(places: Sequence[str]) -> str:
    first = list(dict.fromkeys(places))
    more = ", ..." if len(first) > NUM_EXAMPLES else ""
    return ", ".join(first[:NUM_EXAMPLES]) + more
