"""Levels in JPEG tiles read without OpenSlide, where that gives OpenSlide's pixels."""

from contextlib import suppress
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
        columns = _spans(place[0], size[0], grid.width, grid.tile_width)
        rows = _spans(place[1], size[1], grid.height, grid.tile_height)
        if any(grid.is_missing(column, row) for row, _, _ in rows for column, _, _ in columns):
            return None
        is_within = _is_within(grid, place, size)
        if is_within and _is_tile(grid, place, size):
            return self._decode(file, grid, level, (columns[0][0], rows[0][0]))
        region = np.empty((size[1], size[0], 3), np.uint8)
        if not is_within:
            region.fill(WHITE)
        for row, from_rows, to_rows in rows:
            for column, from_columns, to_columns in columns:
                at = (column, row)
                tile = self._cache.get((level, at), partial(self._decode, file, grid, level, at))
                region[to_rows, to_columns] = tile[from_rows, from_columns]
        return region

    def close(self) -> None:
        """Close the file, after the reads that are under way."""
        self._file = None
        self._cache.clear()

    def _decode(self, file: OpenFile, grid: TileGrid, level: int, at: _Place) -> Pixels:
        try:
            return grid.decode(file.number, *at)
        except DamagedTileError as error:
            downsample = self._levels[level].downsample
            corner = (at[0] * grid.tile_width * downsample, at[1] * grid.tile_height * downsample)
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


def _in_level(corner: _Place, size: _Place, downsample: float) -> _Place | None:
    """The corner in pixels of the level; None where it lies between two, or OpenSlide would read in several parts."""
    if downsample != int(downsample) and max(size) > _LARGEST_SIDE:
        return None
    x, y = corner[0] / downsample, corner[1] / downsample
    place = (round(x), round(y))
    return place if max(abs(x - place[0]), abs(y - place[1])) < _WHOLE else None


def _is_tile(grid: TileGrid, place: _Place, size: _Place) -> bool:
    is_on_grid = place[0] % grid.tile_width == place[1] % grid.tile_height == 0
    return is_on_grid and size == (grid.tile_width, grid.tile_height)


def _is_within(grid: TileGrid, place: _Place, size: _Place) -> bool:
    return min(place) >= 0 and place[0] + size[0] <= grid.width and place[1] + size[1] <= grid.height


def _spans(start: int, length: int, end: int, side: int) -> list[tuple[int, slice, slice]]:
    """Along one axis: each tile's number, its pixels, and theirs in the region."""
    first, last = max(start, 0), min(start + length, end)
    spans = []
    for number in range(first // side, -(-last // side)) if first < last else ():
        corner = number * side
        low, high = max(first, corner), min(last, corner + side)
        spans.append((number, slice(low - corner, high - corner), slice(low - start, high - start)))
    return spans
