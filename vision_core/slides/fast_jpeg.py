"""Levels in JPEG tiles read without OpenSlide, where that gives OpenSlide's pixels."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vision_core.slides.jpeg_tiles import DamagedTileError, TileGrid
from vision_core.slides.source import WHITE, Pixels, Source, TileError, tile_error
from vision_core.slides.tiff_directories import OpenFile, read_grids
from vision_core.slides.tile_cache import TileCache

_CACHE_BYTES = 96 * 2**20  # two rows of tiles of a slide 60,000 pixels wide
_LARGEST_SIDE = 4096  # OpenSlide reads larger regions in parts, each placed at whole pixels of level 0
_WHOLE = 2.0**-10  # OpenSlide places by 256ths of a pixel, and blends where that falls between two
_Place = tuple[int, int]


class FastJpeg:
    """The levels of a file that are in JPEG tiles.

    Args:
        path: The file.
        reference: Reads the same file. Left to it are levels whose pixels differ from its own, regions for which the
            file holds no tile, and those that begin between two pixels of their level.
    """

    def __init__(self, path: Path, reference: Source) -> None:
        self._path = path
        self._levels = reference.levels
        self._cache = TileCache(_CACHE_BYTES)
        self._file: OpenFile | None = OpenFile(path)
        grids = read_grids(path, self._levels)
        self._grids = [
            grid if grid is not None and self._is_same(level, grid, reference) else None
            for level, grid in enumerate(grids)
        ]

    def has(self, level: int) -> bool:
        """Whether the level is read here."""
        return self._grids[level] is not None

    def read(self, level: int, corner: _Place, size: _Place) -> Pixels | None:
        """As ``Source.read``; None where the reference has to read.

        Raises:
            TileError: A tile is damaged; the message names its own place.
        """
        grid, file = self._grids[level], self._file
        place = _in_level(corner, size, self._levels[level].downsample)
        if grid is None or place is None:
            return None
        if file is None:
            raise ValueError(f"'{self._path}' is closed")
        parts = list(_parts(grid, place, size))
        if any(grid.is_missing(part.column, part.row) for part in parts):
            return None
        if len(parts) == 1 and parts[0].is_tile(grid, size):
            return self._decode(file, level, grid, parts[0])
        region = np.full((size[1], size[0], 3), WHITE, np.uint8)
        for part in parts:
            decode = partial(self._decode, file, level, grid, part)
            region[part.to] = self._cache.get((level, part.column, part.row), decode)[part.out_of]
        return region

    def close(self) -> None:
        """Close the file, after the reads that are under way."""
        self._file = None
        self._cache.clear()

    def _decode(self, file: OpenFile, level: int, grid: TileGrid, part: "_Part") -> Pixels:
        try:
            return grid.decode(file.number, part.column, part.row)
        except DamagedTileError as error:
            downsample = self._levels[level].downsample
            corner = (part.column * grid.tile_width * downsample, part.row * grid.tile_height * downsample)
            raise tile_error(self._path, level, corner, str(error)) from error

    def _is_same(self, level: int, grid: TileGrid, reference: Source) -> bool:
        """Whether the tiles with most bytes, with a middling number, the first and the last look the same in both."""
        order = np.argsort(grid.counts, kind="stable")
        numbers = {int(order[-1]), int(order[len(order) // 2]), 0, len(order) - 1}
        same = [self._is_same_tile(level, grid, reference, divmod(each, grid.columns)) for each in sorted(numbers)]
        return True in same and False not in same

    def _is_same_tile(self, level: int, grid: TileGrid, reference: Source, at: _Place) -> bool | None:
        """None where the two cannot be compared: no tile, a damaged one, or OpenSlide blends there."""
        row, column = at
        place = (column * grid.tile_width, row * grid.tile_height)
        size = (min(grid.tile_width, grid.width - place[0]), min(grid.tile_height, grid.height - place[1]))
        downsample = self._levels[level].downsample
        corner = (round(place[0] * downsample), round(place[1] * downsample))
        if grid.is_missing(column, row) or self._file is None or _in_level(corner, size, downsample) != place:
            return None
        tile, known = None, None
        try:
            tile = grid.decode(self._file.number, column, row)[: size[1], : size[0]]
        except DamagedTileError as error:
            if error.is_zeroed:
                return None
        with suppress(TileError):
            known = reference.read(level, corner, size)
        if tile is None or known is None:
            return None if tile is known else False
        return np.array_equal(tile, known)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A tile's share in a region: the rows and columns ``out_of`` the tile, and where they go ``to``."""

    column: int
    row: int
    out_of: tuple[slice, slice]
    to: tuple[slice, slice]

    def is_tile(self, grid: TileGrid, size: _Place) -> bool:
        """Whether the region is this tile."""
        whole = (slice(0, grid.tile_height), slice(0, grid.tile_width))
        return self.to == self.out_of == whole and size == (grid.tile_width, grid.tile_height)


def _in_level(corner: _Place, size: _Place, downsample: float) -> _Place | None:
    """The corner in pixels of the level; None where it lies between two, or OpenSlide would read in several parts."""
    if downsample != int(downsample) and max(size) > _LARGEST_SIDE:
        return None
    x, y = corner[0] / downsample, corner[1] / downsample
    place = (round(x), round(y))
    return place if max(abs(x - place[0]), abs(y - place[1])) < _WHOLE else None


def _parts(grid: TileGrid, place: _Place, size: _Place) -> Iterator[_Part]:
    columns = list(_spans(place[0], size[0], grid.width, grid.tile_width))
    for row, from_rows, to_rows in _spans(place[1], size[1], grid.height, grid.tile_height):
        for column, from_columns, to_columns in columns:
            yield _Part(column=column, row=row, out_of=(from_rows, from_columns), to=(to_rows, to_columns))


def _spans(start: int, length: int, end: int, side: int) -> Iterator[tuple[int, slice, slice]]:
    """Along one axis: each tile's number, its pixels, and theirs in the region."""
    first, last = max(start, 0), min(start + length, end)
    for number in range(first // side, -(-last // side)) if first < last else ():
        low, high = max(first, number * side), min(last, (number + 1) * side)
        yield number, slice(low - number * side, high - number * side), slice(low - start, high - start)
