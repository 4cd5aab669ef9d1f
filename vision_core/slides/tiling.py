"""Tiling of the tissue of a slide."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.environment import release_memory
from vision_core.errors import ConfigError, InputError
from vision_core.slides.reading.slide import Slide
from vision_core.slides.settings import TileSettings
from vision_core.slides.tissue.overview import overview_grid
from vision_core.slides.tissue.regions import Mask, Points, Region, locate_in_polygon, regions_to_mask
from vision_core.slides.tissue.segmentation import Tissue

# Scanners sold as 40x have 0.22 to 0.26 microns per pixel, those sold as 20x 0.44 to 0.51, so tiles at 0.25 or 0.5 may
# be enlarged by a few per cent. Tiles enlarged further would lack the detail of their resolution.
_MAX_ENLARGEMENT = 1.1
_ROUNDING = 1e-3  # pyramids round their downsamples
_EPSILON = 1e-9
_MAX_CELLS = 2_000_000  # of the grid or of the mask, computed at a time
_LAYOUT_SIDES = {"level0_512": 512, "level0_256": 256}


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiles of one slide.

    Attributes:
        corners: ``(N, 2)`` int64, upper left corners ``(x, y)`` in pixels of level 0, row by row. A tile at the edge
            may reach beyond the slide, where it is white.
        side: Of a tile, in pixels of level 0.
        tile_px: Side in pixels to which a tile is resized.
        mpp: Microns per pixel of a tile.
        level: Level to read: the coarsest that is fine enough.
        read_px: Side to read before resizing, in pixels of that level.
        notes: Remarks, one sentence each.
    """

    corners: NDArray[np.int64]
    side: int
    tile_px: int
    mpp: float
    level: int
    read_px: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.corners)


def tile_grid(slide: Slide, tissue: Tissue, settings: TileSettings) -> Tiles:
    """Lay tiles over the tissue of a slide.

    Args:
        slide: The slide.
        tissue: Its tissue.
        settings: ``layout="mpp"``: a grid from the slide's corner, of all tiles with a share of tissue of at least
            ``least_tissue``. ``level0_512``, ``level0_256``: CLAM's grid (Lu et al. 2021), which begins at the corner
            of each region and tests four points and the centre of each tile; ``overlap_px``, ``least_tissue``,
            ``tile_px`` and ``mpp`` are ignored.

    Raises:
        ConfigError: ``overlap_px`` is not less than ``tile_px``.
        InputError: The slide is coarser than the tiles.
    """
    if settings.layout != "mpp":
        side = _LAYOUT_SIDES[settings.layout]
        corners = _clam_corners(tissue.regions, side)
        return Tiles(corners=corners, side=side, tile_px=side, mpp=slide.mpp, level=0, read_px=side)
    if settings.overlap_px >= settings.tile_px:
        raise ConfigError(
            f"tiles.overlap_px: found {settings.overlap_px}, expected less than tiles.tile_px, {settings.tile_px}."
        )
    enlargement = slide.mpp / settings.mpp
    if enlargement > _MAX_ENLARGEMENT:
        raise InputError(
            f"'{slide.path}' has {slide.mpp:.3g} microns per pixel, but tiles of {settings.mpp:.3g} are asked for: "
            f"such detail is not on it. Leave it out, or set tiles.mpp to {slide.mpp:.3g} or more for all slides."
        )
    side = _side(slide, settings.tile_px, enlargement)
    step = max(1, round(side * (1 - settings.overlap_px / settings.tile_px)))
    level, read_px = reading_level(slide, side, settings.tile_px)
    corners = _tissue_corners(slide, tissue.regions, side, step, settings.least_tissue)
    release_memory()  # of the overview pictures that this and the segmentation have freed
    return Tiles(
        corners=corners,
        side=side,
        tile_px=settings.tile_px,
        mpp=settings.mpp,
        level=level,
        read_px=read_px,
        notes=(f"Tiles are enlarged by {100 * (enlargement - 1):.0f} %.",) if enlargement > 1.01 else (),
    )


def reading_level(slide: Slide, side: int, tile_px: int) -> tuple[int, int]:
    """Choose the coarsest sufficient level, and the side in its pixels.

    Args:
        slide: The slide.
        side: Of a tile, in pixels of level 0.
        tile_px: Side in pixels to which a tile is resized.
    """
    wanted = max(1.0, side / tile_px) * (1 + _ROUNDING)
    fine = [number for number, level in enumerate(slide.levels) if level.downsample <= wanted]
    level = max(fine, key=lambda number: slide.levels[number].downsample)
    return level, max(1, round(side / slide.levels[level].downsample))


def integral_image(mask: Mask) -> NDArray[np.int32]:
    """Compute the integral image of a mask: ``(H, W)`` to ``(H+1, W+1)``."""
    return np.asarray(cv2.integral(mask.view(np.uint8), sdepth=cv2.CV_32S), np.int32)


def tissue_shares(
    sums: NDArray[np.int32], pixel_size: tuple[float, float], corners: tuple[Points, Points], side: float
) -> Points:
    """Compute the share of tissue in each tile of a grid.

    It is exact: pixels of the mask that an edge of a tile cuts count by their area inside.

    Args:
        sums: ``integral_image`` of a mask from the slide's upper left corner; beyond the mask there is no tissue.
        pixel_size: Width and height of a pixel of the mask in pixels of level 0.
        corners: ``(w,)`` left and ``(h,)`` upper edges of the tiles, in pixels of level 0.
        side: Of a tile, in pixels of level 0.

    Returns:
        ``(h, w)`` float64 within 0 to 1.
    """
    # Within a pixel the integral image is linear along each axis, so interpolation between pixels is exact.
    edges_x, edges_y = ((np.stack([edge, edge + side]) / size) for edge, size in zip(corners, pixel_size, strict=True))
    bands = _interpolate_rows(sums, edges_y[1]) - _interpolate_rows(sums, edges_y[0])  # (h, W + 1)
    tissue = _interpolate_rows(bands.T, edges_x[1]) - _interpolate_rows(bands.T, edges_x[0])  # (w, h)
    return np.asarray(tissue.T * (pixel_size[0] * pixel_size[1] / side**2))


def _interpolate_rows(table: NDArray[np.int32] | Points, positions: Points) -> Points:
    """Interpolate rows of a table at fractional positions, clamped to it."""
    positions = np.clip(positions, 0, len(table) - 1)
    first = np.minimum(positions.astype(int), max(len(table) - 2, 0))
    share = (positions - first)[:, None]
    return np.asarray(table[first] * (1 - share) + table[np.minimum(first + 1, len(table) - 1)] * share)


def _side(slide: Slide, tile_px: int, enlargement: float) -> int:
    """Compute the side at level 0, preferring one without resizing."""
    side = max(1, round(tile_px / enlargement))
    unresized = [round(tile_px * level.downsample) for level in slide.levels]
    return next((each for each in unresized if abs(each - side) <= 1), side)


def _tissue_corners(slide: Slide, regions: tuple[Region, ...], side: int, step: int, least: float) -> NDArray[np.int64]:
    if not regions:
        return np.zeros((0, 2), np.int64)
    grid = overview_grid(slide)
    sums = integral_image(regions_to_mask(regions, grid.shape, grid.pixel_size))
    xs, ys = np.arange(0, slide.size[1], step), np.arange(0, slide.size[0], step)
    found = []
    num_rows = max(1, _MAX_CELLS // max(len(xs), grid.shape[1]))
    for first in range(0, len(ys), num_rows):
        part = ys[first : first + num_rows]
        shares = tissue_shares(sums, grid.pixel_size, (xs.astype(np.float64), part.astype(np.float64)), side)
        rows, columns = np.nonzero(shares >= max(least - _EPSILON, _EPSILON))
        found.append(np.column_stack([xs[columns], part[rows]]))
    return np.concatenate(found).astype(np.int64)


def _clam_corners(regions: tuple[Region, ...], side: int) -> NDArray[np.int64]:
    found = [np.zeros((0, 2), np.int64), *(_clam_region_corners(region, side) for region in regions)]
    # Sorted row by row; a tile that two regions share is kept once.
    corners = np.unique(np.concatenate(found)[:, ::-1], axis=0)
    return np.ascontiguousarray(corners[:, ::-1])


def _clam_region_corners(region: Region, side: int) -> NDArray[np.int64]:
    """Lay CLAM's grid over a region, from its bounding box's corner.

    A tile is kept if one of four points lies in the region or on its edge, and its centre in no hole.
    """
    first, last = np.floor(region.outline.min(axis=0)), np.floor(region.outline.max(axis=0))
    xs, ys = (np.arange(first[axis], last[axis] + 1, side) for axis in (0, 1))
    centre, shift = side // 2, side // 2 // 2
    is_kept = np.zeros((len(ys), len(xs)), bool)
    for down in (centre - shift, centre + shift):
        for right in (centre - shift, centre + shift):
            is_kept |= locate_in_polygon(region.outline, xs + right, ys + down) >= 0
    xs_of_centres, ys_of_centres = xs + side / 2, ys + side / 2
    for hole in region.holes:
        low, high = hole.min(axis=0), hole.max(axis=0)
        across = slice(*np.searchsorted(xs_of_centres, (low[0], high[0])))
        along = slice(*np.searchsorted(ys_of_centres, (low[1], high[1])))
        is_kept[along, across] &= locate_in_polygon(hole, xs_of_centres[across], ys_of_centres[along]) <= 0
    rows, columns = np.nonzero(is_kept)
    return np.column_stack([xs[columns], ys[rows]]).astype(np.int64)
