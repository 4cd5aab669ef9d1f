"""A whole slide in one small picture, read and reduced block by block: memory does not grow with the slide."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.slides.reading.slide import Slide

OVERVIEW_MPP = 8.0

_AS_IT_IS = 2.0  # times finer or coarser than wanted that a level is taken for; beyond, it is built
_BLOCK_PX = 2048  # of the level, a side: a multiple of the tiles in files
_AT_ONCE_PX = 2**24  # 50 MB
_STRIPE_PX = 2**20
_TOLERANCE = 1.01  # levels of pyramids are a pixel or two smaller than their downsample says


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The pixels of a small picture that covers a whole slide.

    Attributes:
        level: Level to read.
        shape: ``(height, width)`` in pixels.
        pixel: Width and height of a pixel in pixels of level 0.
    """

    level: int
    shape: tuple[int, int]
    pixel: tuple[float, float]


def overview_grid(slide: Slide, mpp: float = OVERVIEW_MPP) -> Grid:
    """The picture in which tissue is looked for: of the level nearest ``mpp``, finer levels reduced to about that."""
    scales = [slide.mpp * level.downsample / mpp for level in slide.levels]
    near = [number for number, scale in enumerate(scales) if 1 / _AS_IT_IS <= scale <= _AS_IT_IS]
    finer = [number for number, scale in enumerate(scales) if scale < 1]
    if near:
        level = min(near, key=lambda number: abs(math.log(scales[number])))
    else:
        level = max(finer, key=lambda number: scales[number], default=0)
    times = max(1, round(1 / scales[level]))
    source = slide.levels[level]
    return _grid(slide, level, (source.height / times, source.width / times))


def thumbnail(slide: Slide, longest_px: int) -> NDArray[np.uint8]:
    """The whole slide, its longer side ``longest_px``, or less where the slide is smaller: ``(h, w, 3)`` uint8.

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
    return read_whole(slide, _grid(slide, level, (height, width)))


def read_whole(slide: Slide, grid: Grid) -> NDArray[np.uint8]:
    """The pixels of a grid, each the mean of the area it covers: ``(height, width, 3)`` uint8.

    Raises:
        TileError: A part of the slide cannot be read.
    """
    level = slide.levels[grid.level]
    is_small = level.width * level.height <= _AT_ONCE_PX
    if is_small and grid.shape == (level.height, level.width):
        return slide.read(grid.level, 0, 0, level.width, level.height)
    picture = np.empty((*grid.shape, 3), np.uint8)
    for rows, top, bottom in _blocks(grid.shape[0], level.height, is_small):
        for columns, left, right in _blocks(grid.shape[1], level.width, is_small):
            x, y = round(left * slide.size[1] / level.width), round(top * slide.size[0] / level.height)
            block = slide.read(grid.level, x, y, right - left, bottom - top)
            picture[rows, columns] = resized(block, (rows.stop - rows.start, columns.stop - columns.start))
    return picture


def stripes(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of a picture of ``shape``, some at a time: what is computed of them is never as large as the picture."""
    height, width = shape[:2]
    step = max(1, _STRIPE_PX // max(1, width))
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))


def resized(picture: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture reduced to ``shape`` (height, width) by area; enlarged, linearly."""
    if picture.shape[:2] == shape:
        return picture
    is_smaller = shape[0] <= picture.shape[0] and shape[1] <= picture.shape[1]
    method = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, shape[::-1], interpolation=method), np.uint8)


def _grid(slide: Slide, level: int, shape: tuple[float, float]) -> Grid:
    height, width = max(1, round(shape[0])), max(1, round(shape[1]))
    return Grid(level=level, shape=(height, width), pixel=(slide.size[1] / width, slide.size[0] / height))


def _blocks(pixels: int, source_px: int, is_small: bool) -> Iterator[tuple[slice, int, int]]:
    """Parts of an axis, and the part of the level that each covers, to the nearest pixel of the level."""
    times = source_px / pixels
    step = pixels if is_small else max(1, round(_BLOCK_PX / times))
    for start in range(0, pixels, step):
        stop = min(start + step, pixels)
        first = min(round(start * times), source_px - 1)
        yield slice(start, stop), first, max(first + 1, round(stop * times))
