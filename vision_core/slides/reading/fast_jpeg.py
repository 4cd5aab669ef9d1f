"""Levels in JPEG tiles read without OpenSlide, where that gives OpenSlide's pixels."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vision_core.slides.reading.jpeg_tiles import DamagedTileError, TileGrid
from vision_core.slides.reading.source import WHITE, Pixels, Source, TileError, tile_error
from vision_core.slides.reading.subpixel import Place, Placed, blend, split
from vision_core.slides.reading.tiff_directories import OpenFile, read_grids
from vision_core.slides.reading.tile_cache import TileCache

_SHARED_TILES = 36  # of a region whose neighbours may be read next
_LINGERING_TILES = 32  # of a batch that several threads read, each its part
_CACHE_BYTES = 96 * 2**20  # two rows of tiles of a slide 60,000 pixels wide
_LARGEST_SIDE = 4096  # OpenSlide reads larger regions in parts, each placed at whole pixels of level 0
_WHOLE = 2.0**-10  # OpenSlide places by 256ths of a pixel, and blends where that falls between two
_Place = tuple[int, int]


class FastJpeg:
    """The levels of a file that are in JPEG tiles.

    Args:
        path: The file.
        reference: Reads the same file. Left to it are levels whose pixels differ from its own, regions for which the
            file holds no tile, and very large ones that it reads in parts.
    """

    def __init__(self, path: Path, reference: Source) -> None:
        self._path = path
        self._levels = reference.levels
        self._cache = TileCache(_CACHE_BYTES, _LINGERING_TILES)
        self._file: OpenFile | None = None
        file = self._file = OpenFile(path)
        self._grids = [
            grid if grid is not None and self._is_same(_Open(grid=grid, file=file, level=level), reference) else None
            for level, grid in enumerate(read_grids(path, self._levels))
        ]

    def has(self, level: int) -> bool:
        """Whether the level is read here."""
        return self._grids[level] is not None

    def read(self, level: int, corner: _Place, size: _Place, *, once: bool = False) -> Pixels | None:
        """As ``Source.read``; None where the reference has to read.

        Args:
            level: Index of the level.
            corner: Upper left, in pixels of level 0.
            size: In pixels of the level.
            once: As in ``Slide.read``.

        Raises:
            TileError: A tile is damaged; the message names its own place.
        """
        grid, file = self._grids[level], self._file
        if grid is None:
            return None
        if file is None:
            raise ValueError(f"'{self._path}' is closed")
        return self._region(_Open(grid=grid, file=file, level=level, is_once=once), corner, size)

    def close(self) -> None:
        """Close the file, after the reads that are under way."""
        self._file = None
        self._cache.clear()

    def _region(self, source: "_Open", corner: _Place, size: _Place) -> Pixels | None:
        downsample = self._levels[source.level].downsample
        if max(size) > _LARGEST_SIDE and not _is_whole(corner, downsample):
            return None
        x, y = (_in_level(each, downsample) for each in corner)
        place = (round(x), round(y))
        if max(abs(x - place[0]), abs(y - place[1])) < _WHOLE:
            return self._whole(source, place, size)
        return self._between(source, split(x, y), size)

    def _whole(self, source: "_Open", place: _Place, size: _Place) -> Pixels | None:
        """A region that begins at a pixel of its level."""
        grid = source.grid
        columns = _spans(place[0], size[0], grid.width, grid.tile_width)
        rows = _spans(place[1], size[1], grid.height, grid.tile_height)
        if any(grid.is_missing(column, row) for row, _, _ in rows for column, _, _ in columns):
            return None
        is_within = min(place) >= 0 and place[0] + size[0] <= grid.width and place[1] + size[1] <= grid.height
        if is_within and _is_tile(grid, place, size):
            return self._decode(source, columns[0][0], rows[0][0])
        region = np.empty((size[1], size[0], 3), np.uint8)
        if not is_within:
            region.fill(WHITE)
        # What a large region takes is not kept: nobody reads it twice.
        tile = self._tile if len(rows) * len(columns) <= _SHARED_TILES else self._decode
        for row, from_rows, to_rows in rows:
            for column, from_columns, to_columns in columns:
                region[to_rows, to_columns] = tile(source, column, row)[from_rows, from_columns]
        if source.is_once:
            self._release(source, place, size, [(column, row) for row, _, _ in rows for column, _, _ in columns])
        return region

    def _between(self, source: "_Open", place: Place, size: _Place) -> Pixels | None:
        """A region that begins between pixels of its level, and so touches one more in each direction."""
        grid = source.grid
        columns = [each for each, _, _ in _spans(place.x, size[0] + 1, grid.width, grid.tile_width)]
        rows = [each for each, _, _ in _spans(place.y, size[1] + 1, grid.height, grid.tile_height)]
        numbers = [(column, row) for row in reversed(rows) for column in reversed(columns)]
        if any(grid.is_missing(*number) for number in numbers):
            return None
        region = blend((self._placed(source, *number) for number in numbers), place, size)
        if source.is_once:
            self._release(source, (int(place.x), int(place.y)), size, numbers)
        return region

    def _placed(self, source: "_Open", column: int, row: int) -> Placed:
        x, y = column * source.grid.tile_width, row * source.grid.tile_height
        tile = self._tile(source, column, row)[: source.grid.height - y, : source.grid.width - x]
        return Placed(pixels=tile, x=x, y=y)

    def _release(self, source: "_Open", place: _Place, size: _Place, numbers: list[_Place]) -> None:
        """Of a region that shares no pixel with others, the tiles that end in it: the next regions begin behind it."""
        right, bottom = place[0] + size[0], place[1] + size[1]
        for column, row in numbers:
            if (column + 1) * source.grid.tile_width <= right and (row + 1) * source.grid.tile_height <= bottom:
                self._cache.release((source.level, column, row))

    def _tile(self, source: "_Open", column: int, row: int) -> Pixels:
        return self._cache.get((source.level, column, row), partial(self._decode, source, column, row))

    def _decode(self, source: "_Open", column: int, row: int) -> Pixels:
        try:
            return source.grid.decode(source.file.number, column, row)
        except DamagedTileError as error:
            downsample = self._levels[source.level].downsample
            corner = (column * source.grid.tile_width * downsample, row * source.grid.tile_height * downsample)
            raise tile_error(self._path, source.level, corner, str(error)) from error

    def _is_same(self, source: "_Open", reference: Source) -> bool:
        """Whether the tiles with most bytes, with a middling number, the first and the last look the same in both."""
        order = np.argsort(source.grid.counts, kind="stable")
        numbers = {int(order[-1]), int(order[len(order) // 2]), 0, len(order) - 1}
        same = [self._is_same_tile(source, reference, divmod(each, source.grid.columns)) for each in sorted(numbers)]
        return True in same and False not in same

    def _is_same_tile(self, source: "_Open", reference: Source, at: _Place) -> bool | None:
        """None where the two cannot be compared: there is no tile, or it is damaged."""
        grid, (row, column) = source.grid, at
        x, y = column * grid.tile_width, row * grid.tile_height
        size = (min(grid.tile_width, grid.width - x), min(grid.tile_height, grid.height - y))
        downsample = self._levels[source.level].downsample
        corner = (round(x * downsample), round(y * downsample))
        found, known = None, None
        try:
            found = self._region(source, corner, size)
            if found is None:
                return None
        except TileError as error:
            if isinstance(error.__cause__, DamagedTileError) and error.__cause__.is_zeroed:
                return None
        with suppress(TileError):
            known = reference.read(source.level, corner, size)
        if found is None or known is None:
            return None if found is known else False
        return np.array_equal(found, known)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Open:
    """A level of the open file."""

    grid: TileGrid
    file: OpenFile
    level: int
    is_once: bool = False


def _is_whole(corner: _Place, downsample: float) -> bool:
    return all((each / downsample).is_integer() for each in corner) and downsample.is_integer()


def _in_level(coordinate: int, downsample: float) -> float:
    """In pixels of the level. OpenSlide leaves out whole pixels before the slide, and then begins at its edge."""
    return coordinate / downsample if coordinate >= 0 else -float(int(-coordinate / downsample))


def _is_tile(grid: TileGrid, place: _Place, size: _Place) -> bool:
    is_on_grid = place[0] % grid.tile_width == place[1] % grid.tile_height == 0
    return is_on_grid and size == (grid.tile_width, grid.tile_height)


def _spans(start: int, length: int, end: int, side: int) -> list[tuple[int, slice, slice]]:
    """Along one axis: each tile's number, its pixels, and theirs in the region."""
    first, last = max(start, 0), min(start + length, end)
    spans = []
    for number in range(first // side, -(-last // side)) if first < last else ():
        corner = number * side
        low, high = max(first, corner), min(last, corner + side)
        spans.append((number, slice(low - corner, high - corner), slice(low - start, high - start)))
    return spans
