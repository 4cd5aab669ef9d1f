import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.vision_core.slides.caches import held_bytes
from vision_core.slides.reading.source import Pixels
from vision_core.slides.reading.tile_cache import TileCache


def tile(value: int = 0, count: int = 100) -> Pixels:
    return np.full(count, value, np.uint8)


def test_get__decodes_once_while_kept() -> None:
    cache, decoded = TileCache(1000), list[int]()

    def decode() -> Pixels:
        decoded.append(1)
        return tile(7)

    assert cache.get("a", decode) is cache.get("a", decode)
    assert len(decoded) == 1 and held_bytes(cache) == 100


def test_get__forgets_what_was_used_longest_ago() -> None:
    cache = TileCache(300)
    for number in range(3):
        cache.get(number, lambda number=number: tile(number))  # type: ignore[misc]
    cache.get(0, lambda: pytest.fail("0 is kept"))
    cache.get(3, lambda: tile(3))
    assert held_bytes(cache) == 300
    cache.get(0, lambda: pytest.fail("0 was used lately"))
    assert cache.get(1, lambda: tile(9))[0] == 9


def test_release__gives_its_room_back_when_others_have_followed() -> None:
    cache = TileCache(300, keep_released=1)
    for number in range(3):
        cache.get(number, lambda number=number: tile(number))  # type: ignore[misc]
    cache.release(2)
    cache.get(2, lambda: pytest.fail("2 is kept for those that are a little behind"))
    cache.release("never there")
    assert held_bytes(cache) == 200
    cache.get(3, lambda: tile(3))
    cache.get(0, lambda: pytest.fail("0 is kept"))
    assert cache.get(2, lambda: tile(9))[0] == 9


def test_get__one_larger_than_all_is_kept_alone() -> None:
    cache = TileCache(50)
    cache.get("a", tile)
    cache.get("b", tile)
    assert held_bytes(cache) == 100


def test_get__threads_wait_for_one_that_decodes() -> None:
    cache, decoded, start = TileCache(1000), list[int](), threading.Barrier(4)

    def decode() -> Pixels:
        decoded.append(1)
        time.sleep(0.05)
        return tile(5)

    def ask(_: int) -> int:
        start.wait()
        return int(cache.get("a", decode)[0])

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == [5, 5, 5, 5]
    assert len(decoded) == 1


def test_get__an_error_is_not_kept() -> None:
    cache = TileCache(1000)

    def fail() -> Pixels:
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            cache.get("a", fail)
    assert cache.get("a", lambda: tile(3))[0] == 3
    assert held_bytes(cache) == 100


def test_get__forgotten_while_it_is_decoded_is_not_counted() -> None:
    cache = TileCache(1000)

    def decode() -> Pixels:
        cache.clear()
        return tile(1)

    assert cache.get("a", decode)[0] == 1
    assert held_bytes(cache) == 0
