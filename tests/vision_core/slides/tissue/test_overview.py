import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vision_core.slides.painted import write_slide
from tests.vision_core.slides.tiffs import overwrite, pyramid, tile_place, tissue, write_tiff
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.reading.source import TileError
from vision_core.slides.tissue.overview import overview_grid, read_overview, resize_image, thumbnail


def gradient(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) % 64 + 90], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("mpp", "level", "shape"), [(0.5, 4, (64, 80)), (0.25, 4, (32, 40)), (4.0, 1, (512, 640))])
def test_overview_grid__level_nearest_8_microns(tmp_path: Path, mpp: float, level: int, shape: tuple[int, int]) -> None:
    with open_slide(write_slide(tmp_path / "a.tif", gradient(1024, 1280), mpp)) as slide:
        grid = overview_grid(slide)
    pixel_size = 1280 / shape[1]
    assert (grid.level, grid.shape, grid.pixel_size) == (level, shape, (pixel_size, pixel_size))


@pytest.mark.parametrize(
    ("mpp", "shape"), [(0.5, (62, 81)), (20.0, (999, 1301)), (8.0, (999, 1301)), (5.0, (500, 650))]
)
def test_overview_grid__built_from_one_level(tmp_path: Path, mpp: float, shape: tuple[int, int]) -> None:
    picture = gradient(999, 1301)
    with open_slide(write_slide(tmp_path / "a.tif", picture, mpp, has_pyramid=False)) as slide:
        grid = overview_grid(slide)
        built = read_overview(slide, grid)
    assert grid.shape == shape and grid.pixel_size == (1301 / shape[1], 999 / shape[0])
    np.testing.assert_allclose(built.astype(int), resize_image(picture, shape), atol=1)


def test_read_overview__blocks_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = gradient(999, 1301)
    with open_slide(write_slide(tmp_path / "a.tif", picture, 0.5, has_pyramid=False)) as slide:
        grid = overview_grid(slide)
        whole = read_overview(slide, grid)
        monkeypatch.setattr("vision_core.slides.tissue.overview._MAX_SINGLE_READ_PX", 0)
        monkeypatch.setattr("vision_core.slides.tissue.overview._BLOCK_PX", 200)
        blocks = read_overview(slide, grid)
    assert np.abs(blocks.astype(int) - whole)[..., :2].max() <= 2


@pytest.mark.parametrize("longest_px", [1, 33, 333, 640, 1301, 5000])
def test_thumbnail__covers_the_slide(tmp_path: Path, longest_px: int) -> None:
    picture = gradient(999, 1301)
    with open_slide(write_slide(tmp_path / "a.tif", picture)) as slide:
        small = thumbnail(slide, longest_px)
    width = min(longest_px, 1301)
    assert small.shape == (max(1, round(999 * width / 1301)), width, 3)
    expected = cv2.resize(picture, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected)[..., :2].mean() < 1.5


def test_thumbnail__of_nothing_is_refused(tmp_path: Path) -> None:
    with (
        open_slide(write_slide(tmp_path / "a.tif", gradient(64, 64))) as slide,
        pytest.raises(ValueError, match="found 0"),
    ):
        thumbnail(slide, 0)


def test_thumbnail__memory_is_that_of_a_block(tmp_path: Path) -> None:
    picture = np.full((6000, 5000, 3), 200, np.uint8)
    path = write_slide(tmp_path / "a.tif", picture, 0.5, has_pyramid=False)
    with open_slide(path) as slide:
        tracemalloc.start()
        thumbnail(slide, 500)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 50e6 < picture.nbytes


def test_read_overview__damage_is_told(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", pyramid(tissue((256, 256)), (1,)))
    start, length = tile_place(path, 5)
    overwrite(path, start, bytes(length))
    with open_slide(path) as slide, pytest.raises(TileError):
        thumbnail(slide, 64)
