"""Decoded tiles that neighbouring regions share: each is decoded once, and what is kept is bounded."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from threading import Lock

from vision_core.slides.reading.source import Pixels


class _Tile:
    """A tile that is decoded or being decoded; ``turn`` is held by the thread that decodes it."""

    __slots__ = ("pixels", "turn")

    def __init__(self) -> None:
        self.pixels: Pixels | None = None
        self.turn = Lock()


class TileCache:
    """The tiles used last, for several threads.

    Args:
        most_bytes: What may be kept, besides what is being decoded.
        linger: Tiles that are kept though they were released.
    """

    def __init__(self, most_bytes: int, linger: int = 0) -> None:
        self._most_bytes, self._linger = most_bytes, linger
        self._released: deque[Hashable] = deque()
        self._bytes = 0
        self._tiles: OrderedDict[Hashable, _Tile] = OrderedDict()
        self._turn = Lock()

    def get(self, key: Hashable, decode: Callable[[], Pixels]) -> Pixels:
        """The tile of ``key``, to be read only; a thread that asks while another decodes it waits.

        Raises:
            Exception: What ``decode`` raises. Nothing is kept then: a thread that waited tries itself.
        """
        with self._turn:
            tile = self._tiles.get(key)
            if tile is None:
                tile = self._tiles[key] = _Tile()
            else:
                self._tiles.move_to_end(key)
        if tile.pixels is not None:
            return tile.pixels
        with tile.turn:
            return self._decoded(key, tile, decode) if tile.pixels is None else tile.pixels

    def release(self, key: Hashable) -> None:
        """Keep this tile no longer than until ``linger`` others are released: other threads may be a little behind."""
        with self._turn:
            self._released.append(key)
            if len(self._released) > self._linger:
                tile = self._tiles.pop(self._released.popleft(), None)
                if tile is not None and tile.pixels is not None:
                    self._bytes -= tile.pixels.nbytes

    def held_bytes(self) -> int:
        """What is kept now."""
        with self._turn:
            return self._bytes

    def clear(self) -> None:
        """Forget all tiles."""
        with self._turn:
            self._tiles.clear()
            self._released.clear()
            self._bytes = 0

    def _decoded(self, key: Hashable, tile: _Tile, decode: Callable[[], Pixels]) -> Pixels:
        try:
            pixels = decode()
        except BaseException:
            with self._turn:
                if self._tiles.get(key) is tile:
                    del self._tiles[key]
            raise
        with self._turn:
            tile.pixels = pixels
            if self._tiles.get(key) is tile:
                self._bytes += pixels.nbytes
                self._evict(pixels.nbytes)
        return pixels

    def _evict(self, newest_bytes: int) -> None:
        """Forget the oldest until the rest fits. One that is being decoded counts when it is done, if it is kept."""
        while self._bytes > max(self._most_bytes, newest_bytes):
            _, oldest = self._tiles.popitem(last=False)
            if oldest.pixels is not None:
                self._bytes -= oldest.pixels.nbytes
