"""Records of labelled images, and checks of labels of all formats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import DataError, Finding, Findings, first_problems

_TOLERATED_PX = 1.0

Box = tuple[float, float, float, float]
Extra = Mapping[str, Mapping[str, Any]]  # by name of the format, by field


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
        extras: Further fields of each box as its format has them, by the name of the format; empty where no box has
            any, or where they were not asked for.
        about: Further fields of the image, likewise.
    """

    image_id: str
    path: Path
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    size: tuple[int, int] | None
    extras: tuple[Extra, ...] = ()
    about: Extra = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DetectionDataset:
    """A list of images and labels, such as one split.

    Attributes:
        name: Folder and split, for messages and reports.
        classes: Names in the order of the labels.
        records: The images.
        findings: What its reader found: boxes dropped, images missing, the map of category numbers.
        has_labels: Whether annotations were read; without them the arrays of the records are empty.
        left_out: Numbers by plural noun of what the files list and the records lack; they stand beside every score.
    """

    name: str
    classes: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    has_labels: bool
    findings: tuple[Finding, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def notes(self) -> tuple[str, ...]:
        """List the notes among the findings: lines for the user."""
        return tuple(each.text for each in self.findings if not each.refuses)

    @property
    def problems(self) -> tuple[str, ...]:
        """List the findings that refuse the data set."""
        return tuple(each.text for each in self.findings if each.refuses)

    def refusing(self, texts: Sequence[str]) -> "DetectionDataset":
        """Return the same list with more findings that refuse it."""
        return replace(self, findings=(*self.findings, *(Finding(severity="refuse", text=text) for text in texts)))

    def checked(self, check: Callable[["DetectionDataset"], object]) -> "DetectionDataset":
        """Return the same list with what ``check`` raises as findings."""
        try:
            check(self)
        except DataError as error:
            return self.refusing(error.problems)
        return self

    def noting(self, *texts: str) -> "DetectionDataset":
        """Return the same list with more notes; itself without any."""
        return (
            self
            if not texts
            else replace(self, findings=(*self.findings, *(Finding(severity="note", text=text) for text in texts)))
        )


@dataclass(frozen=True, kw_only=True)
class LabelledBox:
    """One object of an annotation, of any class."""

    name: str
    box: Box
    is_difficult: bool = False
    is_crowd: bool = False
    extra: Extra = field(default_factory=dict)


class RefusedDataset(DataError):
    """Error of a list with problems: the first five, and how many there are.

    Attributes:
        dataset: The list as far as it could be read, with all findings.
    """

    def __init__(self, dataset: DetectionDataset) -> None:
        super().__init__(first_problems(dataset.problems, dataset.name))
        self.dataset = dataset


@dataclass
class ReaderReport(Findings):
    """Findings of a reader of annotations.

    Attributes:
        on_bad_box: Whether a box without area or off the image refuses the list, or is dropped.
        on_missing: Whether a listed image that is missing refuses the list, or is left out.
        keeps_extras: Whether fields of boxes that detectors do not use, such as polygons, are kept.
    """

    on_bad_box: Literal["refuse", "drop"]
    on_missing: Literal["refuse", "skip"] = "skip"
    keeps_extras: bool = False

    def dataset(
        self, name: str, classes: tuple[str, ...], records: Sequence[ImageRecord], *, has_labels: bool
    ) -> DetectionDataset:
        """Build the data set with its findings.

        Raises:
            RefusedDataset: Some of them refuse it.
        """
        dataset = DetectionDataset(
            name=name,
            classes=classes,
            records=tuple(records),
            findings=self.all(),
            has_labels=has_labels,
            left_out=dict(self.left_out),
        )
        if self.problems:
            raise RefusedDataset(dataset)
        return dataset

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
            self.ask(f"'{where}': box '({corners})' {fault}. Correct the label, or set data.on_bad_box to 'drop'.")
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
            extras=tuple(item.extra for item in objects) if any(item.extra for item in objects) else (),
        )


def objects_of(record: ImageRecord, classes: Sequence[str]) -> list[LabelledBox]:
    """List the objects of a record, from which ``ClassList.record`` builds it."""
    objects = []
    for place, (left, top, right, bottom) in enumerate(record.boxes.astype(float).tolist()):
        objects.append(
            LabelledBox(
                name=classes[int(record.labels[place])],
                box=(left, top, right, bottom),
                is_difficult=bool(record.difficult[place]),
                is_crowd=bool(record.crowd[place]),
                extra=record.extras[place] if record.extras else {},
            )
        )
    return objects


def size_of(record: ImageRecord) -> tuple[int, int]:
    """Return ``(height, width)`` of an image whose labels are to be written.

    Raises:
        DataError: It is not known.
    """
    if record.size is None:
        raise DataError(f"'{record.path}' has no readable header. Mend it, or take it off the list.")
    return record.size


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
