"""Direct decoding of JPEG tiles, with OpenSlide's pixels.

It is ours because no library gives OpenSlide's pixels at its speed: on two cores, tiles of 240 px off the grid of a
real Aperio region are read 3.95 times as fast as by OpenSlide through PIL (``docs/wsi.md``).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vision_core.slides.reading.jpeg_tiles import DamagedTileError, TileGrid
from vision_core.slides.reading.source import WHITE, FileDescriptor, Level, Pixels, Source, TileError, tile_error
from vision_core.slides.reading.subpixel import PositionedTile, SubpixelPosition, composite_tiles, subpixel_position
from vision_core.slides.reading.tile_cache import TileCache

_MAX_CACHED_TILES = 36  # tiles of larger regions are not cached
_KEPT_RELEASED_TILES = 32  # the threads that read a batch are not at the same place
_CACHE_BYTES = 96 * 2**20  # two rows of tiles of a slide 60,000 pixels wide
_MAX_SIDE = 4096  # OpenSlide splits larger regions, and places each part at whole pixels of level 0
_ALIGNMENT_TOLERANCE = 2.0**-10  # of a pixel; OpenSlide rounds positions to 256ths and interpolates between two
_Pair = tuple[int, int]


class FastJpeg:
    """Reader of the levels that are stored in JPEG tiles.

    Args:
        path: The file.
        levels: All levels of the slide.
        grids: The tile grid of each level; None for a level that is left to OpenSlide.
    """

    def __init__(self, path: Path, levels: Sequence[Level], grids: Sequence[TileGrid | None]) -> None:
        self._path = path
        self._levels, self._grids = levels, grids
        self._cache = TileCache(_CACHE_BYTES, _KEPT_RELEASED_TILES)
        self._file: FileDescriptor | None = FileDescriptor(path)

    def equals(self, reference: Source) -> list[bool]:
        """Return for each level whether its first, last, median and largest tile are those of OpenSlide."""
        file = self._file
        return [
            grid is not None
            and file is not None
            and self._matches_reference(_OpenLevel(grid=grid, file=file, level=level), reference)
            for level, grid in enumerate(self._grids)
        ]

    def has(self, level: int) -> bool:
        """Return whether this reader reads a level."""
        return self._grids[level] is not None

    def read(self, level: int, corner: _Pair, size: _Pair, *, sequential: bool = False) -> Pixels | None:
        """Read a region; return None where OpenSlide must read it: missing tiles, very large regions.

        Args:
            level: Index of the level.
            corner: Upper left corner ``(x, y)`` in pixels of level 0.
            size: ``(width, height)`` in pixels of the level.
            sequential: As in ``Slide.read``.

        Raises:
            TileError: A tile is damaged; the message names the position of that tile.
        """
        grid, file = self._grids[level], self._file
        if grid is None:
            return None
        if file is None:
            raise ValueError(f"'{self._path}' is closed")
        return self._read_region(_OpenLevel(grid=grid, file=file, level=level, is_sequential=sequential), corner, size)

    def close(self) -> None:
        """Close the file after the current reads."""
        self._file = None
        self._cache.clear()

    def _read_region(self, source: "_OpenLevel", corner: _Pair, size: _Pair) -> Pixels | None:
        downsample = self._levels[source.level].downsample
        if max(size) > _MAX_SIDE and not _is_whole_position(corner, downsample):
            return None
        x, y = (_to_level(value, downsample) for value in corner)
        position = (round(x), round(y))
        if max(abs(x - position[0]), abs(y - position[1])) < _ALIGNMENT_TOLERANCE:
            return self._read_aligned(source, position, size)
        return self._read_subpixel(source, subpixel_position(x, y), size)

    def _read_aligned(self, source: "_OpenLevel", position: _Pair, size: _Pair) -> Pixels | None:
        """Read a region that begins at a whole pixel of its level."""
        grid = source.grid
        columns = _tile_spans(position[0], size[0], grid.width, grid.tile_width)
        rows = _tile_spans(position[1], size[1], grid.height, grid.tile_height)
        if any(grid.is_missing(column, row) for row, _, _ in rows for column, _, _ in columns):
            return None
        is_within = min(position) >= 0 and position[0] + size[0] <= grid.width and position[1] + size[1] <= grid.height
        if is_within and _is_one_tile(grid, position, size):
            return self._decode(source, columns[0][0], rows[0][0])
        region = np.empty((size[1], size[0], 3), np.uint8)
        if not is_within:
            region.fill(WHITE)
        # Tiles of a large region are not cached: they are seldom read again, and would evict all others.
        tile = self._cached_tile if len(rows) * len(columns) <= _MAX_CACHED_TILES else self._decode
        for row, from_rows, to_rows in rows:
            for column, from_columns, to_columns in columns:
                region[to_rows, to_columns] = tile(source, column, row)[from_rows, from_columns]
        if source.is_sequential:
            self._release_tiles(
                source, position, size, [(column, row) for row, _, _ in rows for column, _, _ in columns]
            )
        return region

    def _read_subpixel(self, source: "_OpenLevel", position: SubpixelPosition, size: _Pair) -> Pixels | None:
        """Read a region that begins between two pixels of its level."""
        grid = source.grid
        columns = [value for value, _, _ in _tile_spans(position.x, size[0] + 1, grid.width, grid.tile_width)]
        rows = [value for value, _, _ in _tile_spans(position.y, size[1] + 1, grid.height, grid.tile_height)]
        tiles = [(column, row) for row in reversed(rows) for column in reversed(columns)]
        if any(grid.is_missing(*tile) for tile in tiles):
            return None
        region = composite_tiles((self._positioned_tile(source, *tile) for tile in tiles), position, size)
        if source.is_sequential:
            self._release_tiles(source, (int(position.x), int(position.y)), size, tiles)
        return region

    def _positioned_tile(self, source: "_OpenLevel", column: int, row: int) -> PositionedTile:
        x, y = column * source.grid.tile_width, row * source.grid.tile_height
        tile = self._cached_tile(source, column, row)[: source.grid.height - y, : source.grid.width - x]
        return PositionedTile(pixels=tile, x=x, y=y)

    def _release_tiles(self, source: "_OpenLevel", position: _Pair, size: _Pair, tiles: list[_Pair]) -> None:
        """Release the tiles that end inside a region of a sequential pass."""
        right, bottom = position[0] + size[0], position[1] + size[1]
        for column, row in tiles:
            if (column + 1) * source.grid.tile_width <= right and (row + 1) * source.grid.tile_height <= bottom:
                self._cache.release((source.level, column, row))

    def _cached_tile(self, source: "_OpenLevel", column: int, row: int) -> Pixels:
        return self._cache.get((source.level, column, row), partial(self._decode, source, column, row))

    def _decode(self, source: "_OpenLevel", column: int, row: int) -> Pixels:
        try:
            return source.grid.decode(source.file.fd, column, row)
        except DamagedTileError as error:
            downsample = self._levels[source.level].downsample
            corner = (column * source.grid.tile_width * downsample, row * source.grid.tile_height * downsample)
            raise tile_error(self._path, source.level, corner, str(error)) from error

    def _matches_reference(self, source: "_OpenLevel", reference: Source) -> bool:
        order = np.argsort(source.grid.counts, kind="stable")
        tiles = {int(order[-1]), int(order[len(order) // 2]), 0, len(order) - 1}
        same = [self._tile_matches(source, reference, divmod(value, source.grid.columns)) for value in sorted(tiles)]
        return True in same and False not in same

    def _tile_matches(self, source: "_OpenLevel", reference: Source, at: _Pair) -> bool | None:
        """Compare one tile with the reference; None if missing or damaged."""
        grid, (row, column) = source.grid, at
        x, y = column * grid.tile_width, row * grid.tile_height
        size = (min(grid.tile_width, grid.width - x), min(grid.tile_height, grid.height - y))
        downsample = self._levels[source.level].downsample
        corner = (round(x * downsample), round(y * downsample))
        found, known = None, None
        try:
            found = self._read_region(source, corner, size)
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
class _OpenLevel:
    """One level of the open file, and how it is read."""

    grid: TileGrid
    file: FileDescriptor
    level: int
    is_sequential: bool = False


def _is_whole_position(corner: _Pair, downsample: float) -> bool:
    return all((value / downsample).is_integer() for value in corner) and downsample.is_integer()


def _to_level(coordinate: int, downsample: float) -> float:
    """Convert a coordinate of level 0 to pixels of a level.

    As OpenSlide does it: left of or above the slide, the fraction of a pixel is dropped.
    """
    return coordinate / downsample if coordinate >= 0 else -float(int(-coordinate / downsample))


def _is_one_tile(grid: TileGrid, position: _Pair, size: _Pair) -> bool:
    is_on_grid = position[0] % grid.tile_width == position[1] % grid.tile_height == 0
    return is_on_grid and size == (grid.tile_width, grid.tile_height)


def _tile_spans(start: int, length: int, end: int, side: int) -> list[tuple[int, slice, slice]]:
    """Intersect a region with the tiles along one axis.

    Returns:
        For each tile its index, the slice of its pixels, and the slice of the region that they fill.
    """
    first, last = max(start, 0), min(start + length, end)
    spans = []
    for number in range(first // side, -(-last // side)) if first < last else ():
        corner = number * side
        low, high = max(first, corner), min(last, corner + side)
        spans.append((number, slice(low - corner, high - corner), slice(low - start, high - start)))
    return spans
