"""Quality of a slide: pen, blur and foreign stain on its tissue."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.slides.reading.slide import Slide
from vision_core.slides.reading.source import TileError
from vision_core.slides.tissue.overview import OverviewGrid, resize_image, row_slices
from vision_core.slides.tissue.regions import Mask

Picture = NDArray[np.uint8]

# OpenCV's hues go to 180: haematoxylin and eosin are 118 (blue-violet) over magenta to 8 (red).
_FIRST_HUE, _LAST_HUE = 118, 8
_GREENISH, _BLUISH = (30, 90), (90, 118)  # not in H&E; pale blue is haematoxylin beside brown (DAB)
_GREEN_SATURATION, _BLUE_SATURATION, _RED_SATURATION = 60, 130, 215
_PURE_RED = (5, 174)  # hues below and above
_BLACK = 50  # brightest channel
_COLOURED = 30  # saturation from which a pixel has a hue
_NOTABLE_PEN, _NOTABLE_BLUR, _NOTABLE_STAIN = 0.02, 0.1, 0.3

_MAX_FIELDS = 24
_FIELD_UM = 128
_FIELD_MPP = 1.0
_MAX_FIELD_MPP = 2.0  # at coarser resolutions blur cannot be seen
_MIN_FIELD_TISSUE = 0.9
_BLUR_LIMIT = 0.055  # of ``sharpness``: sharp tissue has 0.8 to 4, tissue defocused by 2 um less than this
_MIN_VARIANCE = 25.0


@dataclass(frozen=True, kw_only=True)
class TissueQuality:
    """Quality of tissue: flags for tables, and notes in sentences."""

    flags: Mapping[str, float]
    notes: tuple[str, ...]


def assess_quality(slide: Slide, picture: Picture, mask: Mask, grid: OverviewGrid) -> TissueQuality:
    """Assess the quality of the tissue on a slide.

    Args:
        slide: Read at some fields for blur; a field that cannot be read is left out.
        picture: ``(H, W, 3)`` uint8, the overview.
        mask: ``(H, W)`` bool, true on tissue.
        grid: Of the overview.
    """
    pen, other = colour_shares(picture, mask)
    measures = [sharpness(field) for field in read_tissue_fields(slide, mask, grid)]
    blurred = sum(measure < _BLUR_LIMIT for measure in measures)
    flags = {"pen_share": pen, "other_stain_share": other}
    if measures:
        flags["blur_share"] = blurred / len(measures)
    notes = []
    if pen >= _NOTABLE_PEN:
        notes.append(f"{100 * pen:.0f} % of the tissue has the colour of pen or ink.")
    if flags.get("blur_share", 0.0) >= _NOTABLE_BLUR:
        share = 100 * flags["blur_share"]
        notes.append(f"About {share:.0f} % of the tissue is blurred ({blurred} of {len(measures)} places looked at).")
    if other >= _NOTABLE_STAIN:
        notes.append(f"{100 * other:.0f} % of the tissue has colours that H&E does not give: another stain?")
    return TissueQuality(flags=flags, notes=tuple(notes))


def colour_shares(picture: Picture, mask: Mask) -> tuple[float, float]:
    """Compute the shares of pen and of other colours foreign to H&E."""
    counts = sum((_count_colours(picture[rows][mask[rows]]) for rows in row_slices(mask.shape)), start=np.zeros(3))
    pen, other = counts[:2] / max(counts[2], 1)
    return float(pen), float(other)


def _count_colours(pixels: Picture) -> NDArray[np.float64]:
    """Count pixels ``(N, 3)`` uint8 of pen, of foreign colours, and all."""
    if len(pixels) == 0:
        return np.zeros(3)
    hue, saturation, value = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2HSV)[0].T
    is_red = ((hue <= _PURE_RED[0]) | (hue >= _PURE_RED[1])) & (saturation >= _RED_SATURATION)
    is_pen = (
        (_is_in_range(hue, _GREENISH) & (saturation >= _GREEN_SATURATION))
        | (_is_in_range(hue, _BLUISH) & (saturation >= _BLUE_SATURATION))
        | is_red
        | (value < _BLACK)
    )
    is_other = _is_in_range(hue, (_LAST_HUE + 1, _FIRST_HUE)) & (saturation >= _COLOURED) & ~is_pen
    return np.array([is_pen.sum(), is_other.sum(), len(pixels)], np.float64)


def sharpness(field: Picture) -> float:
    """Compute the variance of the Laplacian over the variance of grey values.

    Args:
        field: ``(H, W, 3)`` uint8, RGB.
    """
    grey = cv2.cvtColor(field, cv2.COLOR_RGB2GRAY)
    laplacian = cv2.Laplacian(grey, cv2.CV_32F, ksize=1)
    return float(laplacian.var() / max(float(grey.var()), _MIN_VARIANCE))


def read_tissue_fields(slide: Slide, mask: Mask, grid: OverviewGrid) -> list[Picture]:
    """Read fields of tissue, evenly spread, at one micron per pixel."""
    if slide.mpp > _MAX_FIELD_MPP:
        return []
    wanted = max(1.0, _FIELD_MPP / slide.mpp) * 1.01
    level = max(number for number, each in enumerate(slide.levels) if each.downsample <= wanted)
    side, side_px = round(_FIELD_UM / slide.mpp), round(_FIELD_UM / (slide.mpp * slide.levels[level].downsample))
    final_px = min(side_px, round(_FIELD_UM / _FIELD_MPP))
    last = np.maximum(np.array(slide.size[::-1]) - side, 0)
    fields = []
    for x, y in np.clip(_field_corners(mask, grid, side), 0, last).tolist():
        try:
            field = slide.read(level, x, y, side_px, side_px)
        except TileError:
            continue
        fields.append(resize_image(field, (final_px, final_px)))
    return fields


def _field_corners(mask: Mask, grid: OverviewGrid, side: int) -> NDArray[np.int64]:
    """Choose fields filled with tissue, as corners ``(n, 2)`` at level 0."""
    window = [max(1, round(side / pixel_size)) for pixel_size in grid.pixel_size]
    share = cv2.boxFilter(mask.view(np.uint8), cv2.CV_32F, window, borderType=cv2.BORDER_CONSTANT)
    is_full = np.asarray(share) >= _MIN_FIELD_TISSUE
    # Only counts per row: a list of all full fields would be larger than the mask.
    before = np.append(0, np.cumsum(is_full.sum(axis=1)))
    if before[-1] == 0:
        return np.zeros((0, 2), np.int64)
    chosen = np.unique(np.linspace(0, before[-1] - 1, _MAX_FIELDS).round().astype(int))
    rows = np.searchsorted(before, chosen, "right") - 1
    columns = [np.flatnonzero(is_full[row])[number - before[row]] for row, number in zip(rows, chosen, strict=True)]
    centres = (np.column_stack([columns, rows]) + 0.5) * grid.pixel_size
    return np.asarray(np.rint(centres - side / 2), np.int64)


def _is_in_range(hue: NDArray[np.uint8], bounds: tuple[int, int]) -> Mask:
    return np.asarray((hue >= bounds[0]) & (hue < bounds[1]))
