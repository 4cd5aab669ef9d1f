"""Overview pictures of whole slides, read in bounded memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.slides.reading.slide import Slide, TileError
from vision_core.slides.reading.source import WHITE

_OVERVIEW_MPP = 8.0

_MAX_SCALE_RATIO = 2.0  # between a level and the wanted resolution; beyond, a finer level is reduced
_BLOCK_PX = 2048  # side in pixels of the level, a multiple of the tiles in files
_MAX_SINGLE_READ_PX = 2**24  # 50 MB
_STRIPE_PX = 2**20
_GAP_PX = 256  # side of the smallest region that is tried
_REGIONS_PER_TILE = 9  # that one unreadable tile of the file may touch
_TOLERANCE = 1.01  # levels of pyramids are a pixel or two smaller than their downsample says


@dataclass(frozen=True, kw_only=True)
class OverviewGrid:
    """Pixel grid of an overview picture.

    Attributes:
        level: Level of the slide to read.
        shape: ``(height, width)`` in pixels.
        pixel_size: Width and height of a pixel in pixels of level 0.
    """

    level: int
    shape: tuple[int, int]
    pixel_size: tuple[float, float]


@dataclass(kw_only=True)
class Gaps:
    """Unreadable parts that a picture may have; they are white in it.

    Attributes:
        allowed: Number of unreadable tiles of the file; 0: none.
        found: Regions that could not be read, of at most 256 pixels a side.
    """

    allowed: int = 0
    found: int = field(default=0, init=False)

    def read(  # noqa: PLR0913 (a region has four numbers)
        self, slide: Slide, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        """Read a region as ``Slide.read`` does, without the parts of it that cannot be read.

        Raises:
            TileError: More than are allowed cannot be read.
        """
        try:
            return slide.read(level, x, y, width, height)
        except TileError:
            if not self.allowed:
                raise
            if max(width, height) <= _GAP_PX:
                self.found += 1
                if self.found > _REGIONS_PER_TILE * self.allowed:
                    raise
                return np.full((height, width, 3), WHITE, np.uint8)
        picture = np.empty((height, width, 3), np.uint8)
        scale = slide.levels[level].downsample
        for top in range(0, height, half_height := max(1, -(-height // 2))):
            for left in range(0, width, half_width := max(1, -(-width // 2))):
                size = min(half_width, width - left), min(half_height, height - top)
                part = self.read(slide, level, x + round(left * scale), y + round(top * scale), *size)
                picture[top : top + size[1], left : left + size[0]] = part
        return picture


def overview_grid(slide: Slide, mpp: float = _OVERVIEW_MPP) -> OverviewGrid:
    """Choose the level nearest ``mpp``, or a finer one to reduce."""
    scales = [slide.mpp * level.downsample / mpp for level in slide.levels]
    near = [number for number, scale in enumerate(scales) if 1 / _MAX_SCALE_RATIO <= scale <= _MAX_SCALE_RATIO]
    finer = [number for number, scale in enumerate(scales) if scale < 1]
    if near:
        level = min(near, key=lambda number: abs(math.log(scales[number])))
    else:
        level = max(finer, key=lambda number: scales[number], default=0)
    times = max(1, round(1 / scales[level]))
    source = slide.levels[level]
    return _grid(slide, level, (source.height / times, source.width / times))


def thumbnail(slide: Slide, longest_px: int, gaps: Gaps | None = None) -> NDArray[np.uint8]:
    """Read a thumbnail ``(h, w, 3)`` uint8 of the whole slide.

    Args:
        slide: The slide.
        longest_px: Longer side in pixels; of a smaller slide, its own.
        gaps: Parts that may be unreadable; None: none.

    Raises:
        TileError: A part of the slide cannot be read.
    """
    if longest_px < 1:
        raise ValueError(f"longest_px: expected 1 or more, found {longest_px}")
    scale = min(1.0, longest_px / max(slide.size))
    height, width = slide.size[0] * scale, slide.size[1] * scale
    large = [
        number
        for number, level in enumerate(slide.levels)
        if level.width * _TOLERANCE >= width and level.height * _TOLERANCE >= height
    ]
    level = max(large, key=lambda number: slide.levels[number].downsample, default=0)
    return read_overview(slide, _grid(slide, level, (height, width)), gaps)


def read_overview(slide: Slide, grid: OverviewGrid, gaps: Gaps | None = None) -> NDArray[np.uint8]:
    """Read an overview ``(height, width, 3)`` uint8, reduced by area.

    Args:
        slide: The slide.
        grid: Its pixels.
        gaps: Parts that may be unreadable; None: none.

    Raises:
        TileError: A part of the slide cannot be read.
    """
    gaps = gaps or Gaps()
    level = slide.levels[grid.level]
    is_small = level.width * level.height <= _MAX_SINGLE_READ_PX
    if is_small and grid.shape == (level.height, level.width):
        return gaps.read(slide, grid.level, 0, 0, level.width, level.height)
    picture = np.empty((*grid.shape, 3), np.uint8)
    for rows, top, bottom in _blocks(grid.shape[0], level.height, is_small):
        for columns, left, right in _blocks(grid.shape[1], level.width, is_small):
            x, y = round(left * slide.size[1] / level.width), round(top * slide.size[0] / level.height)
            block = gaps.read(slide, grid.level, x, y, right - left, bottom - top)
            picture[rows, columns] = resize_image(block, (rows.stop - rows.start, columns.stop - columns.start))
    return picture


def row_slices(shape: tuple[int, ...]) -> Iterator[slice]:
    """Divide rows into slices, to bound memory of intermediate results."""
    height, width = shape[:2]
    step = max(1, _STRIPE_PX // max(1, width))
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))


def resize_image(picture: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a picture to ``(height, width)``: reduce by area, enlarge linearly."""
    if picture.shape[:2] == shape:
        return picture
    is_smaller = shape[0] <= picture.shape[0] and shape[1] <= picture.shape[1]
    method = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, shape[::-1], interpolation=method), np.uint8)


def _grid(slide: Slide, level: int, shape: tuple[float, float]) -> OverviewGrid:
    height, width = max(1, round(shape[0])), max(1, round(shape[1]))
    return OverviewGrid(level=level, shape=(height, width), pixel_size=(slide.size[1] / width, slide.size[0] / height))


def _blocks(pixels: int, source_px: int, is_small: bool) -> Iterator[tuple[slice, int, int]]:
    """Divide an axis into blocks, each with its range of the level."""
    times = source_px / pixels
    step = pixels if is_small else max(1, round(_BLOCK_PX / times))
    for start in range(0, pixels, step):
        stop = min(start + step, pixels)
        first = min(round(start * times), source_px - 1)
        yield slice(start, stop), first, max(first + 1, round(stop * times))
