"""Segmentation of tissue as in CLAM (Lu et al. 2021), with the presets that MHIM-MIL published."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.slides.reading.slide import Slide
from vision_core.slides.tissue.overview import Gaps, OverviewGrid, read_overview, row_slices
from vision_core.slides.tissue.regions import Points, Region, holes_by_outline

_DOWNSAMPLE = 64
_REFERENCE_PX = 512  # side at level 0 of the square that is the unit of areas
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class ClamPreset:
    """Settings of CLAM's segmentation.

    Attributes:
        threshold: Saturation above which a pixel is tissue.
        median_px: Side of the median filter, odd.
        closing_px: Side of the square of the morphological closing.
        min_area: Area without holes that a region must exceed, in reference squares.
        min_hole_area: Area that a hole must exceed, in reference squares.
        max_holes: Number of holes that a region keeps, the largest.
    """

    threshold: int
    median_px: int
    closing_px: int
    min_area: float
    min_hole_area: float
    max_holes: int


PRESETS = MappingProxyType(
    {
        "bwh_biopsy": ClamPreset(threshold=15, median_px=11, closing_px=2, min_area=1, min_hole_area=1, max_holes=2),
        "nsclc": ClamPreset(threshold=8, median_px=7, closing_px=4, min_area=100, min_hole_area=16, max_holes=32),
        "tcga": ClamPreset(threshold=8, median_px=7, closing_px=4, min_area=16, min_hole_area=4, max_holes=8),
    }
)


def segment_with_preset(slide: Slide, preset: ClamPreset, gaps: Gaps | None = None) -> tuple[Region, ...]:
    """Segment a slide with a preset, in whole pixels of level 0.

    Raises:
        InputError: The slide has no level small enough to be read as a whole.
        TileError: The level cannot be read.
    """
    level = min(range(len(slide.levels)), key=lambda number: abs(slide.levels[number].downsample - _DOWNSAMPLE))
    width, height = slide.levels[level].width, slide.levels[level].height
    if width * height > _MAX_PIXELS:
        raise InputError(
            f"'{slide.path}' has no level near 1/{_DOWNSAMPLE}: the nearest has {width} x {height} pixels, too many "
            "for the presets of MHIM-MIL. Use tissue.preset=default, or a file with a pyramid."
        )
    pixel_size = (slide.size[1] / width, slide.size[0] / height)
    picture = read_overview(slide, OverviewGrid(level=level, shape=(height, width), pixel_size=pixel_size), gaps)
    return segment_saturation(_saturation(picture), preset, pixel_size)


def segment_saturation(
    saturation: NDArray[np.uint8], preset: ClamPreset, pixel_size: tuple[float, float]
) -> tuple[Region, ...]:
    """Segment the saturation of one level.

    Args:
        saturation: ``(H, W)`` uint8, of the level in HSV.
        preset: Settings.
        pixel_size: Width and height of a pixel in pixels of level 0.
    """
    smooth = cv2.medianBlur(saturation, preset.median_px)
    mask = cv2.threshold(smooth, preset.threshold, 255, cv2.THRESH_BINARY)[1]
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((preset.closing_px, preset.closing_px), np.uint8))
    rings, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    square = int(_REFERENCE_PX**2 / (pixel_size[0] * pixel_size[1]))
    areas = [cv2.contourArea(ring) for ring in rings]
    found = []
    for number, holes in holes_by_outline(tree).items():
        if areas[number] - sum(areas[hole] for hole in holes) <= preset.min_area * square:
            continue
        largest = sorted(holes, key=lambda hole: areas[hole], reverse=True)[: preset.max_holes]
        kept = [_to_level_0(rings[hole], pixel_size) for hole in largest if areas[hole] > preset.min_hole_area * square]
        found.append(Region(outline=_to_level_0(rings[number], pixel_size), holes=tuple(kept)))
    return tuple(found)


def _saturation(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    saturation = np.empty(picture.shape[:2], np.uint8)
    for rows in row_slices(picture.shape):
        saturation[rows] = cv2.cvtColor(picture[rows], cv2.COLOR_RGB2HSV)[..., 1]
    return saturation


def _to_level_0(ring: NDArray[Any], pixel_size: tuple[float, float]) -> Points:
    """Convert a ring to whole pixels of level 0, rounded down."""
    return np.asarray(np.floor(np.asarray(ring)[:, 0] * pixel_size), np.float64)
