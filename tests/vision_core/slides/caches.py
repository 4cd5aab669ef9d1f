"""Measures of a cache of tiles."""

from vision_core.slides.reading.tile_cache import TileCache


def held_bytes(cache: TileCache) -> int:
    """Count the bytes of all decoded tiles in a cache, and compare them with its own count."""
    with cache._lock:
        held = sum(tile.pixels.nbytes for tile in cache._tiles.values() if tile.pixels is not None)
        assert held == cache._bytes
        return held
