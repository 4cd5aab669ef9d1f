from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vision_core.slides.painted import glass, stain, write_slide
from vision_core.errors import InputError
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.tissue.clam_presets import PRESETS, ClamPreset, segment_saturation, segment_with_preset
from vision_core.slides.tissue.regions import Region

PIXEL = (64.0, 64.0)  # a reference square has 64 pixels
PLAIN = ClamPreset(threshold=8, median_px=1, closing_px=1, min_area=1, min_hole_area=1, max_holes=2)


def saturated(
    *boxes: tuple[int, int, int, int], holes: tuple[tuple[int, int, int, int], ...] = ()
) -> NDArray[np.uint8]:
    picture = np.zeros((100, 120), np.uint8)
    for value, group in ((100, boxes), (0, holes)):
        for left, top, right, bottom in group:
            picture[top:bottom, left:right] = value
    return picture


def corners(region: Region) -> list[list[float]]:
    return [region.outline.min(axis=0).tolist(), region.outline.max(axis=0).tolist()]


def test_presets__as_published() -> None:
    fields = ("threshold", "median_px", "closing_px", "min_area", "min_hole_area", "max_holes")
    assert {name: tuple(getattr(preset, field) for field in fields) for name, preset in PRESETS.items()} == {
        "bwh_biopsy": (15, 11, 2, 1, 1, 2),
        "nsclc": (8, 7, 4, 100, 16, 32),
        "tcga": (8, 7, 4, 16, 4, 8),
    }


def test_segment_saturation__contours_run_through_pixels_and_are_scaled_to_level_0() -> None:
    (region,) = segment_saturation(saturated((10, 20, 30, 50)), PLAIN, (64.5, 63.9))
    assert corners(region) == [[645, 1278], [np.floor(29 * 64.5), np.floor(49 * 63.9)]]


def test_segment_saturation__threshold_is_exceeded_not_reached() -> None:
    picture = saturated((10, 20, 30, 50)) // 100 * 8
    assert segment_saturation(picture, PLAIN, PIXEL) == ()
    assert len(segment_saturation(picture + (picture > 0), PLAIN, PIXEL)) == 1


@pytest.mark.parametrize(("side", "count"), [(9, 0), (10, 1)])  # areas of contours: 8 x 8 = 64, 9 x 9 = 81
def test_segment_saturation__area_must_exceed_the_reference(side: int, count: int) -> None:
    assert len(segment_saturation(saturated((10, 10, 10 + side, 10 + side)), PLAIN, PIXEL)) == count


def test_segment_saturation__holes_are_taken_off_the_area() -> None:
    ring = saturated((10, 10, 21, 21), holes=((12, 12, 19, 19),))  # 100 less 64
    assert segment_saturation(ring, PLAIN, PIXEL) == ()


def test_segment_saturation__largest_holes_are_kept_if_large_enough() -> None:
    holes = ((12, 12, 22, 22), (32, 12, 40, 20), (52, 12, 61, 21), (72, 12, 77, 17))
    (region,) = segment_saturation(saturated((5, 5, 100, 90), holes=holes), PLAIN, PIXEL)
    assert [hole.min(axis=0).tolist() for hole in region.holes] == [[11 * 64, 11 * 64], [51 * 64, 11 * 64]]
    (region,) = segment_saturation(saturated((5, 5, 100, 90), holes=holes[3:]), PLAIN, PIXEL)
    assert region.holes == ()


@pytest.mark.parametrize("name", PRESETS)
def test_segment_saturation__equals_a_plain_reading_of_the_procedure(name: str) -> None:
    draws = np.random.default_rng(len(name))
    noise = cv2.GaussianBlur(draws.random((500, 600)), (0, 0), 9)
    saturation = np.clip((noise - noise.mean()) / noise.std() * 20 + 14, 0, 255).astype(np.uint8)
    preset, pixel_size = PRESETS[name], (20.3, 19.8)
    found = segment_saturation(saturation, preset, pixel_size)
    expected = _plainly(saturation, preset, pixel_size)
    assert len(found) == len(expected) > 0
    for region, (outline, holes) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(region.outline, outline)
        assert len(region.holes) == len(holes)
        for one, other in zip(region.holes, holes, strict=True):
            np.testing.assert_array_equal(one, other)


def _plainly(
    saturation: NDArray[np.uint8], preset: ClamPreset, pixel_size: tuple[float, float]
) -> list[tuple[NDArray[np.float64], list[NDArray[np.float64]]]]:
    mask = (cv2.medianBlur(saturation, preset.median_px) > preset.threshold).astype(np.uint8)
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((preset.closing_px,) * 2, np.uint8)), np.uint8)
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    square = np.floor(512**2 / (pixel_size[0] * pixel_size[1]))
    found = []
    for number, contour in enumerate(contours):
        if hierarchy[0][number][3] != -1:
            continue
        holes = [contours[other] for other in range(len(contours)) if hierarchy[0][other][3] == number]
        if not cv2.contourArea(contour) - sum(map(cv2.contourArea, holes)) > preset.min_area * square:
            continue
        holes = sorted(holes, key=cv2.contourArea, reverse=True)[: preset.max_holes]
        holes = [hole for hole in holes if cv2.contourArea(hole) > preset.min_hole_area * square]
        scaled = [
            np.array([[int(x * pixel_size[0]), int(y * pixel_size[1])] for ((x, y),) in ring], float)
            for ring in (contour, *holes)
        ]
        found.append((scaled[0], scaled[1:]))
    return found


@pytest.mark.parametrize(("wanted", "downsample"), [(64, 16), (5, 4), (1, 1)])
def test_segment_with_preset__closest_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int, downsample: int
) -> None:
    monkeypatch.setattr("vision_core.slides.tissue.clam_presets._DOWNSAMPLE", wanted)
    path = write_slide(tmp_path / "a.tif", stain(glass(2048, 2048), [(600, 504, 1400, 1304)]), 0.25)
    with open_slide(path) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4, 8, 16]
        (region,) = segment_with_preset(slide, PRESETS["bwh_biopsy"])
    np.testing.assert_allclose(corners(region), [[600, 504], [1400, 1304]], atol=2 * downsample)
    assert (region.outline % downsample == 0).all() and (region.outline % (2 * downsample) != 0).any()


def test_segment_with_preset__level_too_large_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vision_core.slides.tissue.clam_presets._MAX_PIXELS", 100 * 99)
    path = write_slide(tmp_path / "a.tif", glass(100, 100), has_pyramid=False)
    with open_slide(path) as slide, pytest.raises(InputError, match=r"100 x 100 pixels.*tissue\.preset=default"):
        segment_with_preset(slide, PRESETS["tcga"])
