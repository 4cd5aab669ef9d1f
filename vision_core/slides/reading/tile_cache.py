"""Bounded cache of decoded tiles, which neighbouring regions share."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from threading import Lock

from vision_core.slides.reading.source import Pixels


class _Entry:
    """Tile of the cache. Its ``lock`` is held by the thread that decodes it."""

    __slots__ = ("lock", "pixels")

    def __init__(self) -> None:
        self.pixels: Pixels | None = None
        self.lock = Lock()


class TileCache:
    """A least-recently-used cache of tiles for several threads.

    Args:
        max_bytes: Limit of the decoded tiles that are kept; tiles being decoded do not count.
        keep_released: Number of released tiles that are kept nevertheless.
    """

    def __init__(self, max_bytes: int, keep_released: int = 0) -> None:
        self._max_bytes, self._keep_released = max_bytes, keep_released
        self._released: deque[Hashable] = deque()
        self._bytes = 0
        self._tiles: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, decode: Callable[[], Pixels]) -> Pixels:
        """Return the tile of ``key``, decoded if it is not cached.

        A thread that asks for a tile while another decodes it waits. The pixels must not be changed.

        Raises:
            Exception: What ``decode`` raises. Nothing is cached then; a thread that waited decodes the tile itself.
        """
        with self._lock:
            tile = self._tiles.get(key)
            if tile is None:
                tile = self._tiles[key] = _Entry()
            else:
                self._tiles.move_to_end(key)
        if tile.pixels is not None:
            return tile.pixels
        with tile.lock:
            return self._decode(key, tile, decode) if tile.pixels is None else tile.pixels

    def release(self, key: Hashable) -> None:
        """Mark a tile as no longer needed.

        It is dropped after ``keep_released`` others are released, since other threads may be a little behind.
        """
        with self._lock:
            self._released.append(key)
            if len(self._released) > self._keep_released:
                tile = self._tiles.pop(self._released.popleft(), None)
                if tile is not None and tile.pixels is not None:
                    self._bytes -= tile.pixels.nbytes

    def clear(self) -> None:
        """Drop all tiles."""
        with self._lock:
            self._tiles.clear()
            self._released.clear()
            self._bytes = 0

    def _decode(self, key: Hashable, tile: _Entry, decode: Callable[[], Pixels]) -> Pixels:
        try:
            pixels = decode()
        except BaseException:
            with self._lock:
                if self._tiles.get(key) is tile:
                    del self._tiles[key]
            raise
        with self._lock:
            tile.pixels = pixels
            if self._tiles.get(key) is tile:
                self._bytes += pixels.nbytes
                self._evict(pixels.nbytes)
        return pixels

    def _evict(self, newest_bytes: int) -> None:
        """Drop the least recently used tiles beyond the limit."""
        while self._bytes > max(self._max_bytes, newest_bytes):
            _, oldest = self._tiles.popitem(last=False)
            if oldest.pixels is not None:
                self._bytes -= oldest.pixels.nbytes
