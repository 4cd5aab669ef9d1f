"""Segmentation of tissue, and masks as annotations for QuPath."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.errors import ConfigError, InputError
from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE
from vision_core.slides.reading.slide import Slide
from vision_core.slides.settings import TissueSettings
from vision_core.slides.tissue.clam_presets import PRESETS, segment_with_preset
from vision_core.slides.tissue.edited_masks import find_mask
from vision_core.slides.tissue.overview import Gaps, OverviewGrid, overview_grid, read_overview, row_slices
from vision_core.slides.tissue.quality import assess_quality
from vision_core.slides.tissue.qupath_masks import read_qupath_mask
from vision_core.slides.tissue.regions import (
    Mask,
    Points,
    Region,
    join_diagonal_pixels,
    mask_to_regions,
    regions_to_mask,
)

_MEDIAN_PX, _CLOSING_PX = 5, 5  # of the overview, 8 microns each
_MIN_TISSUE_UM, _MIN_HOLE_UM = 128, 64  # side of the square whose area a component, or a hole, must have
_MIN_MEAN_DISTANCE = 12  # of saturation, between the means of two classes of pixels
_MAX_GLASS_SATURATION = 30  # mean saturation of glass
_MIN_VALUE = 40  # brightest channel; darker pixels have no meaningful saturation
_WHOLE_SLIDE_SHARE = 0.99
_UM2_PER_MM2 = 1e6
_SAME_AREA = 0.6  # overlap with the tissue of the picture of a mask that was drawn around all of it
_LEAST_ON_TISSUE = 0.2  # share of a mask


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """Tissue of a slide.

    Attributes:
        regions: In pixels of level 0; those that a person drew may overlap.
        flags: For the table of results: ``area_mm2``, ``tissue_share`` of the slide, and of the tissue ``pen_share``,
            ``other_stain_share`` and, where blur could be measured, ``blur_share``.
        notes: Warnings and remarks, one sentence each.
    """

    regions: tuple[Region, ...]
    flags: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_tissue(slide: Slide, settings: TissueSettings, max_bad_tiles: int = 0) -> Tissue:
    """Segment the tissue of a slide, or read its edited mask.

    Args:
        slide: The slide.
        settings: Settings of the segmentation.
        max_bad_tiles: Number of unreadable tiles that the slide may have; where it cannot be read, there is no tissue.

    Raises:
        ConfigError: ``settings.regions`` is no folder.
        InputError: The edited mask is damaged or of another slide, or the slide has no level for the preset.
        TileError: The slide cannot be read.
    """
    grid = overview_grid(slide)
    gaps = Gaps(allowed=max_bad_tiles)
    picture = read_overview(slide, grid, gaps)
    regions, notes = _find_regions(slide, settings, picture, (grid, gaps))
    if gaps.found:
        notes = (*notes, "Parts of the overview cannot be read; tissue is not looked for there.")
    mask = regions_to_mask(regions, grid.shape, grid.pixel_size)
    quality = assess_quality(slide, picture, mask, grid)
    share = float(mask.mean())
    area = share * slide.size[0] * slide.size[1] * slide.mpp**2 / _UM2_PER_MM2
    flags = {"area_mm2": area, "tissue_share": share, **quality.flags}
    return Tissue(regions=regions, flags=flags, notes=(*notes, *_extent_notes(share), *quality.notes))


def tissue_mask(picture: NDArray[np.uint8], mpp: float) -> Mask:
    """Segment the tissue of an overview by its saturation.

    Args:
        picture: ``(H, W, 3)`` uint8.
        mpp: Microns per pixel, about 8.

    Returns:
        ``(H, W)`` bool without small components and small holes.
    """
    closing = np.ones((_CLOSING_PX, _CLOSING_PX), np.uint8)
    mask = np.asarray(cv2.morphologyEx(_saturated_pixels(picture).view(np.uint8), cv2.MORPH_CLOSE, closing)).view(bool)
    return _remove_small_components(join_diagonal_pixels(mask), mpp)


def saturation_threshold(counts: NDArray[np.int64]) -> int:
    """Compute the saturation above which a pixel is tissue.

    Otsu's threshold, repeated on the paler pixels as long as they fall into two classes: with glass, pale and dark
    tissue on a slide, a single threshold may separate the last two.

    Args:
        counts: ``(256,)`` histogram of saturation.

    Returns:
        The threshold; -1 if all pixels are tissue.
    """
    top, limit = len(counts), None
    while True:
        split, gap = _otsu(counts[:top])
        if gap < _MIN_MEAN_DISTANCE:
            break
        top, limit = split + 1, split
    palest = float(np.average(np.arange(top), weights=counts[:top]))
    if palest > _MAX_GLASS_SATURATION:
        return -1
    return round(palest) + _MIN_MEAN_DISTANCE if limit is None else limit


def write_tissue(path: Path, tissue: Tissue, slide: Slide, digits: str = "") -> None:
    """Write the regions as annotations for QuPath, atomically; ``digits`` are the first of the slide's hash.

    Raises:
        EnvironmentFault: The disk is full or cannot be written.
    """
    height, width = slide.size
    document = {
        "type": "FeatureCollection",
        "notice": RESEARCH_NOTICE,
        "slide": {"width": width, "height": height},
        **({"input_sha256": digits} if digits else {}),
        "flags": dict(tissue.flags),
        "notes": list(tissue.notes),
        "features": [_feature(region) for region in tissue.regions],
    }
    write_atomic(path, json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n")


def _find_regions(
    slide: Slide, settings: TissueSettings, picture: NDArray[np.uint8], read: tuple[OverviewGrid, Gaps]
) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """Find the regions, with notes on an edited mask."""
    if settings.regions is not None:
        if not settings.regions.is_dir():
            raise ConfigError(f"tissue.regions: '{settings.regions}' is not a folder. Give the folder of edited masks.")
        edited = find_mask(settings.regions, slide.path)
        if edited is not None:
            drawn = read_qupath_mask(edited, slide.size)
            doubts = _compare_with_picture(edited, drawn.regions, slide, picture, read[0])
            return drawn.regions, (f"Tissue as drawn in '{edited.name}'.", *drawn.notes, *doubts)
    if settings.preset != "default":
        return segment_with_preset(slide, PRESETS[settings.preset], read[1]), ()
    grid = read[0]
    mask = tissue_mask(picture, slide.mpp * (grid.pixel_size[0] * grid.pixel_size[1]) ** 0.5)
    return mask_to_regions(mask, grid.pixel_size), ()


def _compare_with_picture(
    path: Path, drawn: Sequence[Region], slide: Slide, picture: NDArray[np.uint8], grid: OverviewGrid
) -> tuple[str, ...]:
    """Refuse an edited mask in microns; note one of which little lies on what looks like tissue.

    Raises:
        InputError: Read as microns, the areas are those of the tissue; as pixels they are not.
    """
    found = tissue_mask(picture, slide.mpp * (grid.pixel_size[0] * grid.pixel_size[1]) ** 0.5)
    if not (drawn and found.any()):
        return ()
    as_pixels = regions_to_mask(drawn, grid.shape, grid.pixel_size)
    um = (grid.pixel_size[0] * slide.mpp, grid.pixel_size[1] * slide.mpp)
    as_microns = regions_to_mask(drawn, grid.shape, um)
    overlap, other = _overlap(as_pixels, found), _overlap(as_microns, found)
    if other >= _SAME_AREA and overlap < other / 2:
        raise InputError(
            f"'{path}': its areas look like microns, not pixels of level 0: read as microns they overlap the tissue of "
            f"the picture by {other:.0%}, as pixels by {overlap:.0%}. Export them in pixels, or divide them by the "
            f"slide's {slide.mpp:g} microns per pixel."
        )
    share = float((as_pixels & found).sum() / max(as_pixels.sum(), 1))
    if share >= _LEAST_ON_TISSUE:
        return ()
    return (f"Only {share:.0%} of the area drawn in '{path.name}' looks like tissue: is it the mask of this slide?",)


def _overlap(one: Mask, other: Mask) -> float:
    """Compute the intersection over the union of two masks."""
    return float((one & other).sum() / max((one | other).sum(), 1))


def _extent_notes(share: float) -> tuple[str, ...]:
    if share == 0:
        return ("No tissue was found on this slide.",)
    if share >= _WHOLE_SLIDE_SHARE:
        return ("Tissue covers the whole slide; no glass was seen.",)
    return ()


def _saturated_pixels(picture: NDArray[np.uint8]) -> Mask:
    """Select the pixels more saturated than glass."""
    smooth = np.asarray(cv2.medianBlur(_saturation(picture), _MEDIAN_PX), np.uint8)
    counts = np.zeros(256, np.int64)
    for rows in row_slices(smooth.shape):
        counts += np.bincount(smooth[rows].ravel(), minlength=256)
    return smooth > saturation_threshold(counts)


def _saturation(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compute the saturation of each pixel, 0 where it is too dark."""
    saturation = np.empty(picture.shape[:2], np.uint8)
    for rows in row_slices(picture.shape):
        hsv = cv2.cvtColor(picture[rows], cv2.COLOR_RGB2HSV)
        saturation[rows] = np.where(hsv[..., 2] < _MIN_VALUE, 0, hsv[..., 1])
    return saturation


def _otsu(counts: NDArray[np.int64]) -> tuple[int, float]:
    """Compute Otsu's threshold of a histogram, and its class means' distance."""
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    mass = np.cumsum(counts * np.arange(len(counts)))
    is_split = (below > 0) & (above > 0)
    if not is_split.any():
        return 0, 0.0
    gaps = (mass[-1] - mass[:-1]) / np.maximum(above, 1) - mass[:-1] / np.maximum(below, 1)
    split = int(np.argmax(np.where(is_split, below * above * gaps**2, -1)))
    return split, float(gaps[split])


def _remove_small_components(mask: Mask, mpp: float) -> Mask:
    """Remove small components and holes of a mask without diagonal contacts."""
    mask = mask & ~_small_components(mask, (_MIN_TISSUE_UM / mpp) ** 2)
    glass = np.pad(~mask, 1, constant_values=True)  # glass at the edge is connected to this frame, so it is no hole
    return mask | _small_components(glass, (_MIN_HOLE_UM / mpp) ** 2)[1:-1, 1:-1]


def _small_components(mask: Mask, least_pixels: float) -> Mask:
    """Select small connected components, except one that spans the mask."""
    _, numbers, facts, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    labels, facts = np.asarray(numbers), np.asarray(facts)
    is_whole = (facts[:, cv2.CC_STAT_WIDTH] == mask.shape[1]) & (facts[:, cv2.CC_STAT_HEIGHT] == mask.shape[0])
    is_small = (facts[:, cv2.CC_STAT_AREA] < least_pixels) & ~is_whole
    is_small[0] = False
    small = np.empty(mask.shape, bool)
    for rows in row_slices(mask.shape):
        small[rows] = is_small[labels[rows]]
    return small


def _feature(region: Region) -> dict[str, Any]:
    rings = [_close_ring(ring) for ring in (region.outline, *region.holes)]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "Tissue", "color": [0, 150, 136]},
            "metadata": {"notice": RESEARCH_NOTICE},
        },
    }


def _close_ring(ring: Points) -> list[list[float]]:
    points = [[int(each) if each.is_integer() else each for each in point] for point in ring.tolist()]
    return [*points, points[0]]
