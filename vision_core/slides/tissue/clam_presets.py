"""Tissue as the published presets of MHIM-MIL find it: the procedure of CLAM (Lu et al. 2021), in our own words."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.slides.reading.slide import Slide
from vision_core.slides.tissue.overview import Grid, read_whole, stripes
from vision_core.slides.tissue.regions import Points, Region, holes_of_tree

_DOWNSAMPLE = 64
_REFERENCE_PX = 512  # side of the square that areas are counted in, at level 0
_MOST_PIXELS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of the procedure.

    Attributes:
        threshold: Saturation above which a pixel is tissue.
        median_px: Side of the median's window, odd.
        closing_px: Side of the square that gaps are closed with.
        least_area: Of a region without its holes, in reference squares; it must be larger.
        least_hole: Of a hole, likewise.
        most_holes: Holes of a region that are kept, the largest.
    """

    threshold: int
    median_px: int
    closing_px: int
    least_area: float
    least_hole: float
    most_holes: int


PRESETS = MappingProxyType(
    {
        "bwh_biopsy": Preset(threshold=15, median_px=11, closing_px=2, least_area=1, least_hole=1, most_holes=2),
        "nsclc": Preset(threshold=8, median_px=7, closing_px=4, least_area=100, least_hole=16, most_holes=32),
        "tcga": Preset(threshold=8, median_px=7, closing_px=4, least_area=16, least_hole=4, most_holes=8),
    }
)


def find_by_preset(slide: Slide, preset: Preset) -> tuple[Region, ...]:
    """The regions of a slide, whole pixels of level 0 as published.

    Raises:
        InputError: The slide has no level small enough to be looked at whole.
        TileError: The level cannot be read.
    """
    level = min(range(len(slide.levels)), key=lambda number: abs(slide.levels[number].downsample - _DOWNSAMPLE))
    width, height = slide.levels[level].width, slide.levels[level].height
    if width * height > _MOST_PIXELS:
        raise InputError(
            f"'{slide.path}' has no level near 1/{_DOWNSAMPLE}: the nearest has {width} x {height} pixels, too many "
            "for the presets of MHIM-MIL. Use tissue.preset=default, or a file with a pyramid."
        )
    pixel = (slide.size[1] / width, slide.size[0] / height)
    picture = read_whole(slide, Grid(level=level, shape=(height, width), pixel=pixel))
    return regions_of(_saturation(picture), preset, pixel)


def regions_of(saturation: NDArray[np.uint8], preset: Preset, pixel: tuple[float, float]) -> tuple[Region, ...]:
    """The regions of one level.

    Args:
        saturation: ``(H, W)`` uint8, of the level in HSV.
        preset: Settings.
        pixel: Width and height of its pixels in pixels of level 0.
    """
    smooth = cv2.medianBlur(saturation, preset.median_px)
    mask = cv2.threshold(smooth, preset.threshold, 255, cv2.THRESH_BINARY)[1]
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((preset.closing_px, preset.closing_px), np.uint8))
    rings, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    square = int(_REFERENCE_PX**2 / (pixel[0] * pixel[1]))
    areas = [cv2.contourArea(ring) for ring in rings]
    found = []
    for number, holes in holes_of_tree(tree).items():
        if areas[number] - sum(areas[hole] for hole in holes) <= preset.least_area * square:
            continue
        largest = sorted(holes, key=lambda hole: areas[hole], reverse=True)[: preset.most_holes]
        kept = [_at_level_0(rings[hole], pixel) for hole in largest if areas[hole] > preset.least_hole * square]
        found.append(Region(outline=_at_level_0(rings[number], pixel), holes=tuple(kept)))
    return tuple(found)


def _saturation(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    saturation = np.empty(picture.shape[:2], np.uint8)
    for rows in stripes(picture.shape):
        saturation[rows] = cv2.cvtColor(picture[rows], cv2.COLOR_RGB2HSV)[..., 1]
    return saturation


def _at_level_0(ring: NDArray[Any], pixel: tuple[float, float]) -> Points:
    """Whole pixels, rounded down: tiles begin at the corner of a region."""
    return np.asarray(np.floor(np.asarray(ring)[:, 0] * pixel), np.float64)
