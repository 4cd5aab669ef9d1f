"""Batches of tiles, read ahead by several threads."""

import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.slides.reading.slide import Slide, TileError
from vision_core.slides.tiling import Tiles

Pixels = NDArray[np.uint8]
_PREFETCHED = 1
_MAX_BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class TileBatch:
    """Consecutive tiles of a grid.

    Attributes:
        indices: Of the tiles in the grid.
        pixels: ``(K, tile_px, tile_px, 3)`` RGB bytes of the tiles that could be read, in order; overwritten when the
            next batch is taken.
        bad: Index of each tile that could not be read, with the reason.
        seconds: Time of reading, summed over the threads.
    """

    indices: range
    pixels: Pixels
    bad: Mapping[int, str]
    seconds: float


def batch_ranges(tiles: Tiles, batch_size: int) -> list[range]:
    """Divide a grid into batches, smaller ones for large tiles."""
    size = max(1, min(batch_size, _MAX_BATCH_BYTES // (3 * tiles.tile_px**2)))
    return [range(first, min(first + size, len(tiles))) for first in range(0, len(tiles), size)]


def read_batches(slide: Slide, tiles: Tiles, batches: Sequence[range], threads: int) -> Generator[TileBatch]:
    """Read batches in order, one ahead.

    A tile that cannot be read is tried once more, on a new handle, before it counts as bad.

    Raises:
        OSError: The disk or share failed.
    """
    shape = (max(map(len, batches), default=0), tiles.tile_px, tiles.tile_px, 3)
    buffers = cycle([np.empty(shape, np.uint8) for _ in range(_PREFETCHED + 1)])
    reader = _TileReader(slide, tiles)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tiles")
    waiting: deque[_PendingBatch] = deque()
    try:
        for indices in batches:
            waiting.append(_submit(pool, threads, reader, (indices, next(buffers))))
            if len(waiting) > _PREFETCHED:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _TileReader:
    """Reader of the tiles of a grid."""

    def __init__(self, slide: Slide, tiles: Tiles) -> None:
        self._slide, self._tiles = slide, tiles
        columns, rows = (np.unique(tiles.corners[:, axis]) for axis in (0, 1))
        self._is_sequential = all((np.diff(places) >= tiles.side).all() for places in (columns, rows))

    def run(self, indices: range, buffer: Pixels) -> tuple[dict[int, str], float]:
        """Read consecutive tiles into a buffer; neighbours share decoded pixels."""
        bad: dict[int, str] = {}
        started = time.perf_counter()
        for index, place in zip(indices, buffer, strict=True):
            try:
                place[:] = self._tile(index)
            except TileError as error:
                bad[index] = " ".join(error.problems)
        return bad, time.perf_counter() - started

    def _tile(self, index: int) -> Pixels:
        x, y = map(int, self._tiles.corners[index])
        region = (self._tiles.level, x, y, self._tiles.read_px, self._tiles.read_px)
        try:
            pixels = self._slide.read(*region, sequential=self._is_sequential)
        except TileError:
            pixels = self._slide.read(*region, sequential=self._is_sequential)
        return _resize(pixels, self._tiles.tile_px)


@dataclass(frozen=True, kw_only=True)
class _PendingBatch:
    indices: range
    buffer: Pixels
    runs: Sequence[Future[tuple[dict[int, str], float]]]

    def result(self) -> TileBatch:
        done = [run.result() for run in self.runs]
        bad = {index: reason for each, _ in done for index, reason in each.items()}
        pixels = self.buffer[: len(self.indices)]
        if bad:
            pixels = pixels[[index not in bad for index in self.indices]]
        return TileBatch(indices=self.indices, pixels=pixels, bad=bad, seconds=sum(seconds for _, seconds in done))


def _submit(pool: ThreadPoolExecutor, runs: int, reader: _TileReader, batch: tuple[range, Pixels]) -> _PendingBatch:
    """Submit a batch as one run of consecutive tiles per thread."""
    indices, buffer = batch
    length = -(-len(indices) // runs)
    parts = [range(first, min(first + length, len(indices))) for first in range(0, len(indices), length)]
    futures = [
        pool.submit(reader.run, indices[part.start : part.stop], buffer[part.start : part.stop]) for part in parts
    ]
    return _PendingBatch(indices=indices, buffer=buffer, runs=futures)


def _resize(pixels: Pixels, side: int) -> Pixels:
    """Resize a tile: reduce by area, enlarge bilinearly."""
    if pixels.shape[0] == side:
        return pixels
    method = cv2.INTER_AREA if pixels.shape[0] > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=method), np.uint8)
