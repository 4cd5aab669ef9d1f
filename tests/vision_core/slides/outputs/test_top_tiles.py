from pathlib import Path

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import ImageDraw

from tests.vision_core.slides.outputs.scored import scored
from vision_core.results import RESEARCH_NOTICE, SlideResult
from vision_core.slides.outputs.top_tiles import TileSelection, draw_tile_sheet, read_tile, select_tiles
from vision_core.slides.reading.slide import Slide, open_slide

SIDE = 128


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 1280 x 1024 pixels at 0.5 microns with levels 1, 2 and 4, each tile of 128 pixels in a colour."""
    path = tmp_path_factory.mktemp("slides") / "a.tiff"
    pixels = np.concatenate([np.concatenate([_plain(x, y) for x in range(10)], axis=1) for y in range(8)])
    options = {"tile": True, "pyramid": True, "compression": "deflate", "tile_width": 256, "tile_height": 256}
    pyvips.Image.new_from_array(pixels).tiffsave(str(path), xres=2000.0, yres=2000.0, resunit="cm", **options)
    return path


def _plain(x: int, y: int) -> NDArray[np.uint8]:
    return np.full((SIDE, SIDE, 3), _colour(x, y), np.uint8)


def _colour(x: int, y: int) -> tuple[int, int, int]:
    return 20 * x, 30 * y, 100


def grid(scores: NDArray[np.float64] | None = None) -> SlideResult:
    tiles = [(SIDE * x, SIDE * y) for y in range(8) for x in range(10)]
    found = np.arange(80.0) if scores is None else scores
    return scored(tiles, found.tolist(), size=(1024, 1280), tile_side=SIDE)


def has_colour(picture: NDArray[np.uint8], x: int, y: int) -> bool:
    return bool((picture == np.array(_colour(x, y), np.uint8)).all(axis=-1).any())


def test_select_tiles__highest_first_and_of_equal_ones_the_first() -> None:
    result = scored([(0, 0), (10, 0), (20, 0), (30, 0)], [1, 3, 2, 3])
    assert select_tiles(result, 3).tolist() == [1, 3, 2]
    assert select_tiles(result, 2, lowest=True).tolist() == [0, 2]
    assert select_tiles(result, 99).tolist() == [1, 3, 2, 0]
    assert select_tiles(result, 0).tolist() == select_tiles(scored([], []), 3).tolist() == []


def test_select_tiles__of_overlapping_tiles_the_highest_alone() -> None:
    result = scored([(0, 0), (5, 5), (9, 0), (10, 0), (20, 0)], [4, 5, 3, 2, 1])
    assert select_tiles(result, 5).tolist() == [1, 4]  # (10, 0) overlaps (5, 5) too


def test_draw_tile_sheet__shows_the_pixels_of_the_highest_tiles_and_no_others(path: Path) -> None:
    with open_slide(path) as slide:
        sheet = draw_tile_sheet(slide, grid(), TileSelection(highest=12, tile_px=SIDE))
    assert [has_colour(sheet, x, 7) for x in range(10)] == [True] * 10
    assert [has_colour(sheet, x, 6) for x in range(10)] == [False] * 8 + [True] * 2
    assert sheet.shape[0] > 3 * 256  # three rows, each pixel twice


def test_draw_tile_sheet__lowest_on_request(path: Path) -> None:
    with open_slide(path) as slide:
        sheet = draw_tile_sheet(slide, grid(), TileSelection(highest=1, lowest=2, tile_px=SIDE))
    assert has_colour(sheet, 9, 7) and has_colour(sheet, 0, 0) and has_colour(sheet, 1, 0)
    assert not has_colour(sheet, 2, 0)


def test_draw_tile_sheet__fewer_tiles_than_asked_for(path: Path) -> None:
    result = scored([(128, 256)], [0.5], size=(1024, 1280), tile_side=SIDE)
    with open_slide(path) as slide:
        assert has_colour(draw_tile_sheet(slide, result), 1, 2)


def texts(monkeypatch: pytest.MonkeyPatch, slide: Slide, result: SlideResult) -> str:
    drawn: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, *rest, **more: drawn.append(text))
    draw_tile_sheet(slide, result, TileSelection(highest=2, lowest=1, tile_px=SIDE))
    return " ".join(drawn)


def test_draw_tile_sheet__says_rank_percentile_place_and_notice_but_no_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(path) as slide:
        said = texts(monkeypatch, slide, grid())
    assert "1 of 80 percentile 99.4 x 1152, y 896" in said and "80 of 80 percentile 0.6 x 0, y 0" in said
    assert "Result: tumour" in said and "Tiles of 64 microns" in said
    assert " 50 µm" in said
    assert RESEARCH_NOTICE in said and "wsi/mhim_v1/0123456789ab" in said and "patient" not in said


def test_draw_tile_sheet__tiles_alike_are_said_to_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(path) as slide:
        assert "looked at all tiles alike" in texts(monkeypatch, slide, grid(np.ones(80)))


def test_draw_tile_sheet__no_tissue_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = scored([], [], size=(1024, 1280))
    with open_slide(path) as slide:
        assert draw_tile_sheet(slide, result).shape[1] >= 400
        said = texts(monkeypatch, slide, result)
    assert "No tissue was found" in said and RESEARCH_NOTICE in said


def test_draw_tile_sheet__none_asked_for_is_the_strip_alone(path: Path) -> None:
    with open_slide(path) as slide:
        assert draw_tile_sheet(slide, grid(), TileSelection(highest=0)).shape[0] < 200


@pytest.mark.parametrize(("tile_px", "level"), [(128, 0), (256, 0), (64, 1), (60, 1), (32, 2), (16, 2)])
def test_read_tile__from_the_coarsest_level_that_is_fine_enough(path: Path, tile_px: int, level: int) -> None:
    with open_slide(path) as slide:
        tile = read_tile(slide, (3 * SIDE, 2 * SIDE), SIDE, tile_px)
        read_px = SIDE >> level
        direct = slide.read(level, 3 * SIDE, 2 * SIDE, read_px, read_px)
    assert tile.shape == (tile_px, tile_px, 3)
    np.testing.assert_allclose(tile.mean(axis=(0, 1)), direct.mean(axis=(0, 1)), atol=1)
    np.testing.assert_allclose(tile.reshape(-1, 3).mean(axis=0), _colour(3, 2), atol=1)
