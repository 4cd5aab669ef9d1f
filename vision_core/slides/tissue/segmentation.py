"""Where on a slide tissue is: found, or drawn by a person; written as annotations that QuPath opens and edits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.errors import ConfigError
from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE
from vision_core.slides.reading.slide import Slide
from vision_core.slides.settings import TissueSettings
from vision_core.slides.tissue.clam_presets import PRESETS, find_by_preset
from vision_core.slides.tissue.overview import Grid, overview_grid, read_whole, stripes
from vision_core.slides.tissue.overview import thumbnail as thumbnail
from vision_core.slides.tissue.quality import judge
from vision_core.slides.tissue.qupath_masks import read_drawing
from vision_core.slides.tissue.regions import Mask, Points, Region, draw_mask, join_corners, outline_mask

MASK_SUFFIX = ".tissue.geojson"

_MEDIAN_PX, _CLOSING_PX = 5, 5  # of the overview, 8 microns each
_LEAST_TISSUE_UM, _LEAST_HOLE_UM = 128, 64  # side of a square as large as the smallest piece, or hole, that is kept
_APART = 12  # saturation between means of two kinds of pixels
_GLASS = 30  # saturation that glass has at most, as a mean
_DARK = 40  # brightest channel below which there is no colour, hence no saturation
_WHOLE = 0.99
_UM2_PER_MM2 = 1e6


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """Where on a slide tissue is.

    Attributes:
        regions: Pieces of tissue, in pixels of level 0; those that a person drew may overlap.
        flags: For the table of results: ``area_mm2``, ``tissue_share`` of the slide; of the tissue ``pen_share``,
            ``other_stain_share`` and, where it could be looked at, ``blur_share``.
        notes: What is notable, each a sentence.
    """

    regions: tuple[Region, ...]
    flags: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_tissue(slide: Slide, settings: TissueSettings) -> Tissue:
    """Find the tissue of a slide, or read the mask that a person edited, where there is one.

    Raises:
        ConfigError: ``settings.regions`` is no folder.
        InputError: The edited mask is broken or of another slide, or the slide has no level for the preset.
        TileError: The slide cannot be read.
    """
    grid = overview_grid(slide)
    picture = read_whole(slide, grid)
    regions, notes = _regions(slide, settings, picture, grid)
    mask = draw_mask(regions, grid.shape, grid.pixel)
    quality = judge(slide, picture, mask, grid)
    share = float(mask.mean())
    area = share * slide.size[0] * slide.size[1] * slide.mpp**2 / _UM2_PER_MM2
    flags = {"area_mm2": area, "tissue_share": share, **quality.flags}
    return Tissue(regions=regions, flags=flags, notes=(*notes, *_extent(share), *quality.notes))


def mask_path(slide: Slide, folder: Path) -> Path:
    """Where the mask of a slide lies in a folder of masks."""
    return folder / f"{slide.path.stem}{MASK_SUFFIX}"


def tissue_mask(picture: NDArray[np.uint8], mpp: float) -> Mask:
    """Tissue in an overview, by its saturation.

    Args:
        picture: ``(H, W, 3)`` uint8.
        mpp: Microns per pixel, about 8.

    Returns:
        ``(H, W)`` bool without specks and pinholes.
    """
    closing = np.ones((_CLOSING_PX, _CLOSING_PX), np.uint8)
    mask = np.asarray(cv2.morphologyEx(_coloured(picture).view(np.uint8), cv2.MORPH_CLOSE, closing)).view(bool)
    return _without_specks(join_corners(mask), mpp)


def saturation_limit(counts: NDArray[np.int64]) -> int:
    """The saturation above which a pixel is tissue; -1 where all of it is.

    Otsu's threshold, taken again of the paler pixels as long as they are of two kinds: a slide has glass, pale and
    dark tissue, and one threshold may fall between the last two.

    Args:
        counts: ``(256,)`` pixels of each saturation.
    """
    top, limit = len(counts), None
    while True:
        split, gap = _otsu(counts[:top])
        if gap < _APART:
            break
        top, limit = split + 1, split
    palest = float(np.average(np.arange(top), weights=counts[:top]))
    if palest > _GLASS:
        return -1
    return round(palest) + _APART if limit is None else limit


def write_tissue(path: Path, tissue: Tissue, slide: Slide) -> None:
    """Write the regions as annotations of QuPath, whole or not at all; ``read_tissue`` gives the same back.

    Raises:
        EnvironmentFault: The disk is full or cannot be written.
    """
    height, width = slide.size
    document = {
        "type": "FeatureCollection",
        "notice": RESEARCH_NOTICE,
        "slide": {"width": width, "height": height},
        "flags": dict(tissue.flags),
        "notes": list(tissue.notes),
        "features": [_feature(region) for region in tissue.regions],
    }
    write_atomic(path, json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n")


def read_tissue(path: Path, slide: Slide) -> Tissue:
    """Read a mask, ours or one that QuPath exported; flags and notes are those of the file, if it has any.

    Raises:
        InputError: It cannot be read, is no GeoJSON, or shows another slide.
    """
    drawing = read_drawing(path, slide.size)
    stated, notes = drawing.members.get("flags"), drawing.members.get("notes")
    flags = stated if isinstance(stated, dict) else {}
    flags = {name: float(value) for name, value in flags.items() if _is_number(value)}
    sentences = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    return Tissue(regions=drawing.regions, flags=flags, notes=(*sentences, *drawing.notes))


def _regions(
    slide: Slide, settings: TissueSettings, picture: NDArray[np.uint8], grid: Grid
) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """The regions, and what there is to say about an edited mask."""
    if settings.regions is not None:
        if not settings.regions.is_dir():
            raise ConfigError(f"tissue.regions: '{settings.regions}' is not a folder. Give the folder of edited masks.")
        edited = mask_path(slide, settings.regions)
        if edited.is_file():
            drawing = read_drawing(edited, slide.size)
            return drawing.regions, (f"Tissue as drawn in '{edited.name}'.", *drawing.notes)
    if settings.preset != "default":
        return find_by_preset(slide, PRESETS[settings.preset]), ()
    mask = tissue_mask(picture, slide.mpp * (grid.pixel[0] * grid.pixel[1]) ** 0.5)
    return outline_mask(mask, grid.pixel), ()


def _extent(share: float) -> tuple[str, ...]:
    if share == 0:
        return ("No tissue was found on this slide.",)
    if share >= _WHOLE:
        return ("Tissue covers the whole slide; no glass was seen.",)
    return ()


def _coloured(picture: NDArray[np.uint8]) -> Mask:
    """The pixels more saturated than glass."""
    smooth = np.asarray(cv2.medianBlur(_saturation(picture), _MEDIAN_PX), np.uint8)
    counts = np.zeros(256, np.int64)
    for rows in stripes(smooth.shape):
        counts += np.bincount(smooth[rows].ravel(), minlength=256)
    return smooth > saturation_limit(counts)


def _saturation(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of each pixel; 0 where it is too dark to have one."""
    saturation = np.empty(picture.shape[:2], np.uint8)
    for rows in stripes(picture.shape):
        hsv = cv2.cvtColor(picture[rows], cv2.COLOR_RGB2HSV)
        saturation[rows] = np.where(hsv[..., 2] < _DARK, 0, hsv[..., 1])
    return saturation


def _otsu(counts: NDArray[np.int64]) -> tuple[int, float]:
    """The split of a histogram with the largest variance between its sides, and the distance of their means."""
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    mass = np.cumsum(counts * np.arange(len(counts)))
    is_split = (below > 0) & (above > 0)
    if not is_split.any():
        return 0, 0.0
    gaps = (mass[-1] - mass[:-1]) / np.maximum(above, 1) - mass[:-1] / np.maximum(below, 1)
    split = int(np.argmax(np.where(is_split, below * above * gaps**2, -1)))
    return split, float(gaps[split])


def _without_specks(mask: Mask, mpp: float) -> Mask:
    """A mask without small pieces, small holes in it filled. Pieces and holes meet along edges, never at corners."""
    mask = mask & ~_small(mask, (_LEAST_TISSUE_UM / mpp) ** 2)
    glass = np.pad(~mask, 1, constant_values=True)  # what touches the edge is no hole
    return mask | _small(glass, (_LEAST_HOLE_UM / mpp) ** 2)[1:-1, 1:-1]


def _small(mask: Mask, least_pixels: float) -> Mask:
    """Connected pieces of fewer pixels; of a mask with a frame, not that frame."""
    _, numbers, facts, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    labels, facts = np.asarray(numbers), np.asarray(facts)
    is_whole = (facts[:, cv2.CC_STAT_WIDTH] == mask.shape[1]) & (facts[:, cv2.CC_STAT_HEIGHT] == mask.shape[0])
    is_small = (facts[:, cv2.CC_STAT_AREA] < least_pixels) & ~is_whole
    is_small[0] = False
    small = np.empty(mask.shape, bool)
    for rows in stripes(mask.shape):
        small[rows] = is_small[labels[rows]]
    return small


def _feature(region: Region) -> dict[str, Any]:
    rings = [_closed(ring) for ring in (region.outline, *region.holes)]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "Tissue", "color": [0, 150, 136]},
            "metadata": {"notice": RESEARCH_NOTICE},
        },
    }


def _closed(ring: Points) -> list[list[float]]:
    points = [[int(each) if each.is_integer() else each for each in point] for point in ring.tolist()]
    return [*points, points[0]]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
