from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vision_core.slides.painted import EOSIN, HAEMATOXYLIN, glass, stain, write_slide
from tests.vision_core.slides.tiffs import overwrite, tile_place, write_tiff
from vision_core.assets import aperio_slide
from vision_core.slides.reading.slide import Slide, open_slide
from vision_core.slides.tissue.overview import OverviewGrid, overview_grid, read_overview
from vision_core.slides.tissue.quality import (
    TissueQuality,
    assess_quality,
    colour_shares,
    read_tissue_fields,
    sharpness,
)

Picture = NDArray[np.uint8]


def shares(*colours: tuple[int, int, int]) -> tuple[float, float]:
    picture = np.array(colours, np.uint8).reshape(-1, 1, 3)
    return colour_shares(picture, np.ones(picture.shape[:2], bool))


@pytest.mark.parametrize(
    "colour",
    [EOSIN, HAEMATOXYLIN, (90, 50, 120), (230, 190, 210), (200, 60, 80), (190, 40, 60), (150, 60, 110), (70, 40, 90)],
)
def test_colour_shares__haematoxylin_eosin_and_blood_are_no_pen(colour: tuple[int, int, int]) -> None:
    assert shares(colour) == (0.0, 0.0)


@pytest.mark.parametrize(
    "colour", [(20, 120, 60), (30, 170, 170), (20, 60, 180), (20, 20, 25), (230, 20, 30), (150, 200, 40)]
)
def test_colour_shares__pens_of_all_colours(colour: tuple[int, int, int]) -> None:
    assert shares(colour) == (1.0, 0.0)


@pytest.mark.parametrize("colour", [(140, 90, 50), (110, 60, 30), (150, 165, 195)])
def test_colour_shares__brown_and_pale_blue_are_another_stain(colour: tuple[int, int, int]) -> None:
    assert shares(colour) == (0.0, 1.0)


def test_colour_shares__of_all_pixels() -> None:
    assert shares(EOSIN, (20, 120, 60), (140, 90, 50), (243, 243, 243)) == (0.25, 0.25)
    assert shares() == (0.0, 0.0)


def test_colour_shares__of_a_picture_larger_than_a_stripe() -> None:
    colours = np.array([EOSIN, (20, 120, 60), (140, 90, 50)], np.uint8)
    numbers = np.random.default_rng(0).integers(3, size=(1500, 1500))
    mask = np.random.default_rng(1).random(numbers.shape) < 0.4
    pen, other = (((numbers == number) & mask).sum() / mask.sum() for number in (1, 2))
    assert colour_shares(colours[numbers], mask) == (pen, other)


def real_pixels() -> Picture:
    with open_slide(aperio_slide()) as slide:
        return slide.read(0, 800, 1600, 768, 1024)


def test_sharpness__falls_with_defocus() -> None:
    field = cv2.resize(real_pixels(), (384, 512), interpolation=cv2.INTER_AREA)  # one micron per pixel
    measures = [sharpness(np.asarray(field, np.uint8))]
    measures += [sharpness(np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.uint8)) for sigma in (1, 2, 4)]
    assert measures == sorted(measures, reverse=True)
    assert measures[0] > 0.5 and measures[2] < 0.055


def judged(slide: Slide) -> TissueQuality:
    grid = overview_grid(slide)
    picture = read_overview(slide, grid)
    mask = (picture.max(axis=2).astype(int) - picture.min(axis=2)) > 20
    return assess_quality(slide, picture, mask, grid)


def real_slide(path: Path, blurred_rows: int = 0) -> Path:
    picture = np.tile(real_pixels(), (2, 2, 1))
    picture[:blurred_rows] = cv2.GaussianBlur(picture[:blurred_rows], (0, 0), 6) if blurred_rows else 0
    return write_slide(path, picture, 0.5)


def test_assess_quality__real_tissue_is_sharp_and_without_notes() -> None:
    with open_slide(aperio_slide()) as slide:
        quality = judged(slide)
    assert quality.flags["blur_share"] == 0 and quality.flags["pen_share"] < 0.02 and quality.notes == ()


def test_assess_quality__half_blurred_is_told(tmp_path: Path) -> None:
    with open_slide(real_slide(tmp_path / "a.tif", 1024)) as slide:
        quality = judged(slide)
    assert 0.3 <= quality.flags["blur_share"] <= 0.7
    assert any("of the tissue is blurred" in note and "of 24 places" in note for note in quality.notes)


def test_assess_quality__pen_and_brown_are_told(tmp_path: Path) -> None:
    for colours, name in ((((20, 120, 60), EOSIN), "pen or ink"), (((140, 90, 50), EOSIN), "another stain")):
        picture = glass(512, 512)
        picture[100:400, 100:250] = colours[0]
        picture[100:400, 250:400] = colours[1]
        with open_slide(write_slide(tmp_path / "a.tif", picture, 4.0)) as slide:
            quality = judged(slide)
        assert any(name in note and note.startswith("50 % of the tissue") for note in quality.notes), quality


def test_assess_quality__no_tissue(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "a.tif", glass(300, 300))) as slide:
        assert judged(slide) == TissueQuality(flags={"pen_share": 0.0, "other_stain_share": 0.0}, notes=())


def test_read_tissue_fields__too_coarse_a_slide_has_none(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "a.tif", stain(glass(400, 400), [(50, 50, 350, 350)]), 4.0)) as slide:
        assert "blur_share" not in judged(slide).flags


def test_read_tissue_fields__of_a_micron_per_pixel_inside_the_tissue(tmp_path: Path) -> None:
    y, x = np.mgrid[:2048, :2048] // 8
    with open_slide(write_slide(tmp_path / "a.tif", np.stack([x, y, x], axis=-1).astype(np.uint8), 0.5)) as slide:
        grid = OverviewGrid(level=0, shape=(128, 128), pixel_size=(16.0, 16.0))
        mask = np.zeros(grid.shape, bool)
        mask[64:, 32:] = True
        fields = read_tissue_fields(slide, mask, grid)
    assert len(fields) == 24 and {field.shape for field in fields} == {(128, 128, 3)}
    places = {tuple(field[0, 0, :2].tolist()) for field in fields}
    assert len(places) == 24
    assert all(64 - 4 <= x <= 256 - 32 and 128 - 4 <= y <= 256 - 32 for x, y in places)


def test_read_tissue_fields__a_damaged_place_is_left_out(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [np.tile(real_pixels(), (1, 1, 1))])
    start, length = tile_place(path, 12 * 8 + 6)
    overwrite(path, start, bytes(length))
    with open_slide(path) as slide:
        grid = OverviewGrid(level=0, shape=(64, 48), pixel_size=(16.0, 16.0))
        fields = read_tissue_fields(slide, np.ones(grid.shape, bool), grid)
    assert 0 < len(fields) < 24
