"""Tiles of a slide, read by threads into batches of bytes, one batch ahead of who takes them."""

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
_AHEAD = 1
_BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class TileBatch:
    """Consecutive tiles of a grid.

    Attributes:
        numbers: Theirs in the grid.
        pixels: ``(K, tile_px, tile_px, 3)`` RGB bytes of those that could be read, in order; they last until the next
            batch is taken.
        bad: The others, each with the reason.
        seconds: Of reading, summed over the threads.
    """

    numbers: range
    pixels: Pixels
    bad: Mapping[int, str]
    seconds: float


def batch_ranges(tiles: Tiles, batch_size: int) -> list[range]:
    """The tiles of a grid in batches; smaller ones where large tiles would take too much memory."""
    size = max(1, min(batch_size, _BATCH_BYTES // (3 * tiles.tile_px**2)))
    return [range(first, min(first + size, len(tiles))) for first in range(0, len(tiles), size)]


def read_batches(slide: Slide, tiles: Tiles, batches: Sequence[range], threads: int) -> Generator[TileBatch]:
    """Read batches in order. One is read ahead, so memory does not grow with the slide.

    A tile that cannot be read is tried once more, on a new handle; then it is bad.

    Raises:
        OSError: The disk or share failed.
    """
    shape = (max(map(len, batches), default=0), tiles.tile_px, tiles.tile_px, 3)
    buffers = cycle([np.empty(shape, np.uint8) for _ in range(_AHEAD + 1)])
    reading = _Reading(slide, tiles)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tiles")
    waiting: deque[_Pending] = deque()
    try:
        for numbers in batches:
            waiting.append(_start(pool, threads, reading, (numbers, next(buffers))))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().finish()
        while waiting:
            yield waiting.popleft().finish()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Reading:
    """Reads one tile of a grid."""

    def __init__(self, slide: Slide, tiles: Tiles) -> None:
        self._slide, self._tiles = slide, tiles
        columns, rows = (np.unique(tiles.corners[:, axis]) for axis in (0, 1))
        self._is_once = all((np.diff(places) >= tiles.side).all() for places in (columns, rows))

    def run(self, numbers: range, buffer: Pixels) -> tuple[dict[int, str], float]:
        """Read consecutive tiles into a buffer, one after the other: neighbours share decoded pixels."""
        bad: dict[int, str] = {}
        started = time.perf_counter()
        for number, place in zip(numbers, buffer, strict=True):
            try:
                place[:] = self._tile(number)
            except TileError as error:
                bad[number] = " ".join(error.problems)
        return bad, time.perf_counter() - started

    def _tile(self, number: int) -> Pixels:
        x, y = map(int, self._tiles.corners[number])
        region = (self._tiles.level, x, y, self._tiles.read_px, self._tiles.read_px)
        try:
            pixels = self._slide.read(*region, once=self._is_once)
        except TileError:
            pixels = self._slide.read(*region, once=self._is_once)
        return _resized(pixels, self._tiles.tile_px)


@dataclass(frozen=True, kw_only=True)
class _Pending:
    numbers: range
    buffer: Pixels
    runs: Sequence[Future[tuple[dict[int, str], float]]]

    def finish(self) -> TileBatch:
        done = [run.result() for run in self.runs]
        bad = {number: reason for each, _ in done for number, reason in each.items()}
        pixels = self.buffer[: len(self.numbers)]
        if bad:
            pixels = pixels[[number not in bad for number in self.numbers]]
        return TileBatch(numbers=self.numbers, pixels=pixels, bad=bad, seconds=sum(seconds for _, seconds in done))


def _start(pool: ThreadPoolExecutor, runs: int, reading: _Reading, batch: tuple[range, Pixels]) -> _Pending:
    """Share a batch among the threads, a run of neighbours each."""
    numbers, buffer = batch
    length = -(-len(numbers) // runs)
    parts = [range(first, min(first + length, len(numbers))) for first in range(0, len(numbers), length)]
    futures = [
        pool.submit(reading.run, numbers[part.start : part.stop], buffer[part.start : part.stop]) for part in parts
    ]
    return _Pending(numbers=numbers, buffer=buffer, runs=futures)


def _resized(pixels: Pixels, side: int) -> Pixels:
    """By area when it is reduced, else bilinear."""
    if pixels.shape[0] == side:
        return pixels
    method = cv2.INTER_AREA if pixels.shape[0] > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=method), np.uint8)
