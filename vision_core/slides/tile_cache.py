"""Decoded tiles that neighbouring regions share: each is decoded once, and what is kept is bounded."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock

from vision_core.slides.source import Pixels


class TileCache:
    """The tiles used last, for several threads.

    Args:
        most_bytes: What may be kept, besides what is being decoded.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._tiles: OrderedDict[Hashable, Future[Pixels]] = OrderedDict()
        self._turn = Lock()

    def get(self, key: Hashable, decode: Callable[[], Pixels]) -> Pixels:
        """The tile of ``key``, to be read only; a thread that asks while another decodes it waits.

        Raises:
            Exception: What ``decode`` raises, in every thread that waits for it; the next call tries again.
        """
        with self._turn:
            tile = self._tiles.get(key)
            is_new = tile is None
            if tile is None:
                tile = self._tiles[key] = Future()
            else:
                self._tiles.move_to_end(key)
        if is_new:
            self._fill(key, tile, decode)
        return tile.result()

    def held_bytes(self) -> int:
        """What is kept now."""
        with self._turn:
            return self._bytes

    def clear(self) -> None:
        """Forget all tiles."""
        with self._turn:
            self._tiles.clear()
            self._bytes = 0

    def _fill(self, key: Hashable, tile: Future[Pixels], decode: Callable[[], Pixels]) -> None:
        try:
            pixels = decode()
        except BaseException as error:
            with self._turn:
                self._tiles.pop(key, None)
            tile.set_exception(error)
            return
        tile.set_result(pixels)
        with self._turn:
            if self._tiles.get(key) is tile:
                self._bytes += pixels.nbytes
            self._evict()

    def _evict(self) -> None:
        for key in list(self._tiles) if self._bytes > self._most_bytes else ():
            if self._tiles[key].done():
                self._bytes -= self._tiles.pop(key).result().nbytes
            if self._bytes <= self._most_bytes:
                return
