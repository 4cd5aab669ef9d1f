"""What may be wrong with a slide: pen, blur, colours of another stain; shares of the tissue, told when notable."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.slides.reading.slide import Slide
from vision_core.slides.reading.source import TileError
from vision_core.slides.tissue.overview import Grid, resized, stripes
from vision_core.slides.tissue.regions import Mask

Picture = NDArray[np.uint8]

# OpenCV's hues go to 180: haematoxylin and eosin are 118 (blue-violet) over magenta to 8 (red).
_FIRST_HUE, _LAST_HUE = 118, 8
_GREENISH, _BLUISH = (30, 90), (90, 118)  # no stain of H&E; blue, if pale, is haematoxylin beside brown (DAB)
_GREEN_SATURATION, _BLUE_SATURATION, _RED_SATURATION = 60, 130, 215
_PURE_RED = (5, 174)  # hues below and above
_BLACK = 50  # brightest channel
_COLOURED = 30  # saturation from which a pixel has a hue
_NOTABLE_PEN, _NOTABLE_BLUR, _NOTABLE_STAIN = 0.02, 0.1, 0.3

_FIELDS = 24
_FIELD_UM = 128
_FIELD_MPP = 1.0
_COARSEST_MPP = 2.0  # coarser, focus is not seen
_FIELD_TISSUE = 0.9
_BLURRED = (
    0.055  # variance of the Laplacian to that of the grey values: sharp tissue has 0.8 to 4, defocused by 2 um less
)
_LEAST_VARIANCE = 25.0


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Flags for the table of results, and sentences for what is notable."""

    flags: Mapping[str, float]
    notes: tuple[str, ...]


def judge(slide: Slide, picture: Picture, mask: Mask, grid: Grid) -> Quality:
    """Judge the tissue of a slide.

    Args:
        slide: Read at some places for blur; a place that cannot be read is left out.
        picture: ``(H, W, 3)`` uint8, the overview.
        mask: ``(H, W)`` bool, where tissue is.
        grid: Of the overview.
    """
    pen, other = colour_shares(picture, mask)
    measures = [sharpness(field) for field in read_fields(slide, mask, grid)]
    blurred = sum(measure < _BLURRED for measure in measures)
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
    return Quality(flags=flags, notes=tuple(notes))


def colour_shares(picture: Picture, mask: Mask) -> tuple[float, float]:
    """The shares of the pixels in ``mask`` with the colour of pen, and with other colours that H&E lacks."""
    counts = sum((_count_colours(picture[rows][mask[rows]]) for rows in stripes(mask.shape)), start=np.zeros(3))
    pen, other = counts[:2] / max(counts[2], 1)
    return float(pen), float(other)


def _count_colours(pixels: Picture) -> NDArray[np.float64]:
    """Of pixels ``(N, 3)`` uint8 RGB: those of pen, those of other colours that H&E lacks, and all."""
    if len(pixels) == 0:
        return np.zeros(3)
    hue, saturation, value = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2HSV)[0].T
    is_red = ((hue <= _PURE_RED[0]) | (hue >= _PURE_RED[1])) & (saturation >= _RED_SATURATION)
    is_pen = (
        (_between(hue, _GREENISH) & (saturation >= _GREEN_SATURATION))
        | (_between(hue, _BLUISH) & (saturation >= _BLUE_SATURATION))
        | is_red
        | (value < _BLACK)
    )
    is_other = _between(hue, (_LAST_HUE + 1, _FIRST_HUE)) & (saturation >= _COLOURED) & ~is_pen
    return np.array([is_pen.sum(), is_other.sum(), len(pixels)], np.float64)


def sharpness(field: Picture) -> float:
    """Variance of the Laplacian of a field ``(H, W, 3)`` uint8, relative to the variance of its grey values."""
    grey = cv2.cvtColor(field, cv2.COLOR_RGB2GRAY)
    laplacian = cv2.Laplacian(grey, cv2.CV_32F, ksize=1)
    return float(laplacian.var() / max(float(grey.var()), _LEAST_VARIANCE))


def read_fields(slide: Slide, mask: Mask, grid: Grid) -> list[Picture]:
    """Some fields of tissue, evenly over it, at one micron per pixel or the next coarser there is."""
    if slide.mpp > _COARSEST_MPP:
        return []
    wanted = max(1.0, _FIELD_MPP / slide.mpp) * 1.01
    level = max(number for number, each in enumerate(slide.levels) if each.downsample <= wanted)
    side, side_px = round(_FIELD_UM / slide.mpp), round(_FIELD_UM / (slide.mpp * slide.levels[level].downsample))
    final_px = min(side_px, round(_FIELD_UM / _FIELD_MPP))
    last = np.maximum(np.array(slide.size[::-1]) - side, 0)
    fields = []
    for x, y in np.clip(_places(mask, grid, side), 0, last).tolist():
        try:
            field = slide.read(level, x, y, side_px, side_px)
        except TileError:
            continue
        fields.append(resized(field, (final_px, final_px)))
    return fields


def _places(mask: Mask, grid: Grid, side: int) -> NDArray[np.int64]:
    """Upper left corners ``(n, 2)``, in pixels of level 0, of fields that tissue fills."""
    window = [max(1, round(side / pixel)) for pixel in grid.pixel]
    share = cv2.boxFilter(mask.view(np.uint8), cv2.CV_32F, window, borderType=cv2.BORDER_CONSTANT)
    is_full = np.asarray(share) >= _FIELD_TISSUE
    before = np.append(0, np.cumsum(is_full.sum(axis=1)))  # of each row; no list of all, which is larger than the mask
    if before[-1] == 0:
        return np.zeros((0, 2), np.int64)
    chosen = np.unique(np.linspace(0, before[-1] - 1, _FIELDS).round().astype(int))
    rows = np.searchsorted(before, chosen, "right") - 1
    columns = [np.flatnonzero(is_full[row])[number - before[row]] for row, number in zip(rows, chosen, strict=True)]
    centres = (np.column_stack([columns, rows]) + 0.5) * grid.pixel
    return np.asarray(np.rint(centres - side / 2), np.int64)


def _between(hue: NDArray[np.uint8], bounds: tuple[int, int]) -> Mask:
    return np.asarray((hue >= bounds[0]) & (hue < bounds[1]))
