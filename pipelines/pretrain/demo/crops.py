"""Slices, blocks and frames of the small set of real images, each with its place in the source file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vision_core.randomness import key

Part = Literal["train", "val", "test"]
Box = tuple[slice, ...]
PARTS: tuple[Part, ...] = ("train", "val", "test")

_MARGIN_PX = 2  # of each block: no pixel of one part touches one of another
_SHARES = (0.5, 0.17)  # of the blocks, for train and val; the others are for test
_LEAST_SPREAD = 6.0  # grey levels; below it a block or slice is background
_LINES: dict[Part, tuple[int, ...]] = {  # of a slab: blocks of slices with three slices between them
    "train": (0, 2, 4, 6, 8, 28, 30, 32, 34, 36),
    "val": (12, 14),
    "test": (18, 20, 22, 24),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Image and its place in the source file.

    Attributes:
        concept: Class of the image.
        part: List that it belongs to.
        source: Name of the file.
        box: Box of the file's array, a slice for each axis.
        filled: Lines of the box that were filled in from the lines beside them, for each axis.
        pixels: ``(H, W)`` grey or ``(H, W, 3)``.
    """

    concept: str
    part: Part
    source: str
    box: Box
    filled: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    pixels: NDArray[np.generic]

    def place(self) -> str:
        """Describe the box: first and last index for each axis."""
        return " ".join(f"{each.start}-{each.stop - 1}" for each in self.box)


@dataclass(frozen=True, kw_only=True)
class Slab:
    """Slab of a volume: some dozen neighbouring slices that are one class.

    Attributes:
        name: Name of its position.
        axis: Axis across which slices are cut: 0 sagittal, 1 coronal, 2 axial.
        start: Index of its first slice.
    """

    name: str
    axis: int
    start: int


@dataclass(frozen=True, kw_only=True)
class Area:
    """Area of a picture that is cut into blocks of one class.

    Attributes:
        concept: Class of the blocks.
        box: Top, left, bottom, right in pixels.
        grid: Rows and columns of blocks.
    """

    concept: str
    box: tuple[int, int, int, int]
    grid: tuple[int, int]


def slices_of(source: str, volume: NDArray[np.generic], slabs: Sequence[Slab], window: Box) -> Iterator[Piece]:
    """Cut slices of a volume so that no voxel is in two parts.

    The volume is its own mirror image along the first axis: a slice and its mirror image go to one part. Slices across
    different axes meet in lines. A line that belongs to a slice of another part is filled in with the mean of the lines
    on both sides, which belong to no other slice.

    Args:
        source: Name of the file.
        volume: ``(x, y, z)``.
        slabs: Slabs whose names are the classes.
        window: Visible range of each axis.
    """
    taken = [taken_lines(slabs, axis, volume.shape[axis] if axis == 0 else None) for axis in range(3)]
    for slab in slabs:
        for part in PARTS:
            for offset in _LINES[part]:
                piece = _slice(source, volume, slab, slab.start + offset, (window, part, taken))
                if not piece.pixels.std() < _LEAST_SPREAD:
                    yield piece


def taken_lines(slabs: Sequence[Slab], axis: int, mirrored_in: int | None = None) -> dict[int, Part]:
    """Assign slices across ``axis`` to parts, and their mirror images among ``mirrored_in`` slices."""
    lines: dict[int, Part] = {}
    for slab in slabs:
        if slab.axis == axis:
            lines |= {slab.start + offset: part for part in PARTS for offset in _LINES[part]}
    if mirrored_in is not None:
        lines |= {mirrored_in - 1 - line: part for line, part in lines.items()}
    return lines


def blocks_of(source: str, picture: NDArray[np.generic], areas: Sequence[Area]) -> Iterator[Piece]:
    """Cut blocks with more than background, assigned to the parts at random within each class.

    Args:
        source: Name of the file.
        picture: ``(H, W, 3)``.
        areas: Areas that do not overlap.
    """
    boxes: dict[str, list[Box]] = {}
    for area in areas:
        found = [box for box in _grid(area) if picture[box].std() >= _LEAST_SPREAD]
        boxes.setdefault(area.concept, []).extend(found)
    for concept, found in boxes.items():
        order = np.random.default_rng(key("small real", source, concept)).permutation(len(found))
        train, val = (round(share * len(found)) for share in _SHARES)
        for place, number in enumerate(order.tolist()):
            part: Part = "train" if place < train else "val" if place < train + val else "test"
            yield Piece(concept=concept, part=part, source=source, box=found[number], pixels=picture[found[number]])


def frames_of(source: str, frames: NDArray[np.generic], areas: Sequence[Area]) -> Iterator[Piece]:
    """Cut areas of the frames of a cine loop ``(T, H, W, 3)``; parts are blocks of time."""
    for area in areas:
        top, left, bottom, right = area.box
        for part in PARTS:
            for number in (line for line in _LINES[part] if line < len(frames)):
                box = (slice(number, number + 1), slice(top, bottom), slice(left, right))
                yield Piece(concept=area.concept, part=part, source=source, box=box, pixels=frames[box][0])


def _slice(
    source: str,
    volume: NDArray[np.generic],
    slab: Slab,
    line: int,
    cut: tuple[Box, Part, Sequence[Mapping[int, Part]]],
) -> Piece:
    window, part, taken = cut
    image = np.moveaxis(volume, slab.axis, 0)[line].astype(np.float64)
    across = [axis for axis in range(3) if axis != slab.axis]
    filled = {axis: tuple(each for each, owner in taken[axis].items() if owner != part) for axis in across}
    for axis, lines in zip((0, 1), filled.values(), strict=True):
        rows = np.moveaxis(image, axis, 0)
        rows[list(lines)] = (rows[[each - 1 for each in lines]] + rows[[each + 1 for each in lines]]) / 2
    image = image[tuple(window[axis] for axis in across)]
    box = tuple(slice(line, line + 1) if axis == slab.axis else window[axis] for axis in range(3))
    upright = np.rint(image).T[::-1]  # the later axis upwards
    return Piece(concept=slab.name, part=part, source=source, box=box, filled=filled, pixels=upright)


def _grid(area: Area) -> Iterator[Box]:
    top, left, bottom, right = area.box
    rows = np.linspace(top, bottom, area.grid[0] + 1).astype(int).tolist()
    columns = np.linspace(left, right, area.grid[1] + 1).astype(int).tolist()
    for first, last in pairwise(rows):
        for start, stop in pairwise(columns):
            yield slice(first + _MARGIN_PX, last - _MARGIN_PX), slice(start + _MARGIN_PX, stop - _MARGIN_PX)
