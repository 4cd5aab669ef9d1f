from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vision_core.slides.caches import held_bytes
from tests.vision_core.slides.tiffs import tissue, write_tiff
from vision_core.slides.features.tile_batches import batch_ranges, read_batches
from vision_core.slides.reading.jpeg_tiles import TileGrid
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.tiling import Tiles

SIDE = 48


def _tiles(step: int) -> Tiles:
    """A grid over 640 x 640 pixels whose tiles are none of the file's, which have 64 pixels."""
    places = range(0, 640, step)
    corners = np.array([(x, y) for y in places for x in places], np.int64)
    return Tiles(corners=corners, side=SIDE, tile_px=SIDE, mpp=0.5, level=0, read_px=SIDE)


@pytest.mark.parametrize(("step", "threads"), [(SIDE, 1), (SIDE // 2, 1), (SIDE, 2)])
def test_read_batches__each_tile_of_the_file_is_decoded_once(
    step: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = tissue((640, 640))
    decode, decoded = TileGrid.decode, list[tuple[int, int]]()

    def counting(grid: TileGrid, file: int, column: int, row: int) -> NDArray[np.uint8]:
        decoded.append((column, row))
        return decode(grid, file, column, row)

    tiles = _tiles(step)
    with open_slide(write_tiff(tmp_path / "a.tif", [pixels])) as slide:
        monkeypatch.setattr(TileGrid, "decode", counting)
        batches = [batch.pixels.copy() for batch in read_batches(slide, tiles, batch_ranges(tiles, 8), threads)]
        assert sorted(decoded) == [(column, row) for column in range(10) for row in range(10)]
        expected = [slide.read(0, x, y, SIDE, SIDE) for x, y in tiles.corners[:50].tolist()]
    np.testing.assert_array_equal(np.concatenate(batches)[:50], expected)


def test_read_batches__keeps_one_row_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vision_core.slides.reading.fast_jpeg._KEPT_RELEASED_TILES", 0)
    tiles = _tiles(SIDE)
    with open_slide(write_tiff(tmp_path / "a.tif", [tissue((640, 640))])) as slide:
        assert slide._fast is not None
        cache, held = slide._fast._cache, list[int]()
        for _ in read_batches(slide, tiles, batch_ranges(tiles, 8), threads=1):
            held.append(held_bytes(cache))
    assert max(held) <= 12 * 64 * 64 * 3
