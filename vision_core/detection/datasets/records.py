"""One record per image, whatever the format on disk, and the rules for labels that all formats share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import DataError, InputError
from vision_core.images.reading import image_size

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
        difficult: ``(M,)`` bool; training uses these boxes, VOC metrics pass over them.
        crowd: ``(M,)`` bool; regions that stand for many objects: no training target, passed over by metrics.
        size: ``(height, width)`` in pixels, None where nothing has told it yet.
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
    """A list of images for one purpose.

    Attributes:
        name: Folder and split, for messages and reports.
        classes: Names in the order of the labels.
        records: The images.
        notes: What a user should know: boxes dropped, images missing, the map of category numbers.
        has_labels: Whether annotations were read; without them the arrays of the records are empty.
    """

    name: str
    classes: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    notes: tuple[str, ...]
    has_labels: bool

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, kw_only=True)
class LabelledBox:
    """One object of an annotation, before it is known whether its class counts."""

    name: str
    box: Box
    is_difficult: bool = False
    is_crowd: bool = False


@dataclass
class Reading:
    """What a reader meets on its way: problems, which refuse the data set, remarks, and facts, which are counted."""

    on_bad_box: Literal["refuse", "drop"]
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    facts: dict[str, list[str]] = field(default_factory=dict)

    def note(self, fact: str, where: str) -> None:
        """Count ``fact`` once more; the first places are shown as examples."""
        self.facts.setdefault(fact, []).append(where)

    def dataset(
        self, name: str, classes: tuple[str, ...], records: Sequence[ImageRecord], *, has_labels: bool
    ) -> DetectionDataset:
        """The data set with its notes, unless there were problems.

        Raises:
            DataError: The first five problems, and how many there are.
        """
        if self.problems:
            raise DataError(_shortened(self.problems, name))
        counted = [f"{fact}: {len(places)} ({_examples(places)})" for fact, places in self.facts.items()]
        notes = (*self.remarks, *counted)
        return DetectionDataset(name=name, classes=classes, records=tuple(records), notes=notes, has_labels=has_labels)

    def admit(self, box: Box, size: tuple[int, int] | None, where: str) -> Box | None:
        """The box, cut at the image's edge if it crosses it by a pixel at most; None where it is refused or dropped."""
        fault = _fault(box, size)
        if fault is None:
            return self._clip(box, size, where)
        if self.on_bad_box == "drop":
            self.note("boxes dropped (without area, or off the image)", where)
        else:
            corners = ", ".join(f"{corner:g}" for corner in box)
            self.problems.append(
                f"'{where}': box '({corners})' {fault}. Correct the label, or set data.on_bad_box to 'drop'."
            )
        return None

    def _clip(self, box: Box, size: tuple[int, int] | None, where: str) -> Box:
        if size is None:
            return box
        clipped = _inside(box, size)
        if clipped != box:
            self.note("boxes cut at the image's edge (by one pixel at most)", where)
        return clipped


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """The classes a data set is read with; objects of other names are dropped."""

    names: tuple[str, ...]

    def keep(self, objects: Sequence[LabelledBox], where: str, reading: Reading) -> list[LabelledBox]:
        """Those objects whose name is on the list; the others are noted."""
        for item in objects:
            if item.name not in self.names:
                reading.note(f"objects of class '{item.name}', not in data.classes, dropped", where)
        return [item for item in objects if item.name in self.names]

    def record(
        self, image_id: str, path: Path, objects: Sequence[LabelledBox], size: tuple[int, int] | None
    ) -> ImageRecord:
        """The record of one image whose objects are all of the list."""
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
    """A record without labels, as adaptation gets it."""
    return ClassList(names=()).record(image_id, path, (), None)


def size_from_header(path: Path, reading: Reading) -> tuple[int, int] | None:
    """The size the image file declares; an unreadable header is noted, since training will skip the image."""
    try:
        return image_size(path)
    except InputError:
        reading.note("images with an unreadable header", path.name)
        return None


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


def _inside(box: Box, size: tuple[int, int]) -> Box:
    height, width = size
    return (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))


def _shortened(problems: Sequence[str], name: str) -> list[str]:
    if len(problems) <= NUM_EXAMPLES:
        return list(problems)
    total = f"'{name}' has '{len(problems)}' problems in all; the first {NUM_EXAMPLES} are told. Correct them."
    return [*problems[:NUM_EXAMPLES], total]


def _examples(places: Sequence[str]) -> str:
    first = list(dict.fromkeys(places))
    more = ", ..." if len(first) > NUM_EXAMPLES else ""
    return ", ".join(first[:NUM_EXAMPLES]) + more
