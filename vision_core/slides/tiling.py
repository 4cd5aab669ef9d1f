"""The grid of tiles over the tissue of a slide."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.environment import release_memory
from vision_core.errors import ConfigError, InputError
from vision_core.slides.reading.slide import Slide
from vision_core.slides.settings import TileSettings
from vision_core.slides.tissue.overview import overview_grid
from vision_core.slides.tissue.regions import Mask, Points, Region, draw_mask, locate
from vision_core.slides.tissue.segmentation import Tissue

# Scanners called 40x have 0.22 to 0.26 microns per pixel, those called 20x 0.44 to 0.51: tiles of a round figure may be
# finer by a few per cent. Beyond, a tile would have to be enlarged: its detail is not on the slide.
_MOST_ENLARGED = 1.1
_ROUNDING = 1e-3  # pyramids round their downsamples
_LEAST = 1e-9
_CELLS = 2_000_000  # of a part of the integral image
_SIDES = {"level0_512": 512, "level0_256": 256}


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiles of one slide.

    Attributes:
        corners: ``(N, 2)`` int64, upper left corners ``(x, y)`` in pixels of level 0, row by row. A tile at the edge
            may reach beyond the slide, where it is white.
        side: Of a tile, in pixels of level 0.
        tile_px: Side in pixels that a tile is resized to.
        mpp: Microns per pixel of a tile.
        level: To read from: the coarsest that is fine enough.
        read_px: Side to read, in pixels of that level, before resizing.
        notes: What is notable, each a sentence.
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
    """The tiles of a slide.

    Args:
        slide: The slide.
        tissue: Where to lay them.
        settings: ``layout="mpp"``: a grid from the slide's corner, of tiles of which ``least_tissue`` is tissue.
            ``level0_512``, ``level0_256``: CLAM's (Lu et al. 2021), which begins at the corner of each region and looks
            at four points and the centre of each tile; overlap, share and resolution are not asked for.

    Raises:
        ConfigError: Tiles overlap wholly.
        InputError: The slide is coarser than the tiles.
    """
    if settings.layout != "mpp":
        side = _SIDES[settings.layout]
        corners = _clam_corners(tissue.regions, side)
        return Tiles(corners=corners, side=side, tile_px=side, mpp=slide.mpp, level=0, read_px=side)
    if settings.overlap_px >= settings.tile_px:
        raise ConfigError(
            f"tiles.overlap_px: found {settings.overlap_px}, expected less than tiles.tile_px, {settings.tile_px}."
        )
    enlarged = slide.mpp / settings.mpp
    if enlarged > _MOST_ENLARGED:
        raise InputError(
            f"'{slide.path}' has {slide.mpp:.3g} microns per pixel, but tiles of {settings.mpp:.3g} are asked for: "
            f"such detail is not on it. Leave it out, or set tiles.mpp to {slide.mpp:.3g} or more for all slides."
        )
    side = _side(slide, settings.tile_px, enlarged)
    step = max(1, round(side * (1 - settings.overlap_px / settings.tile_px)))
    level, read_px = reading(slide, side, settings.tile_px)
    corners = _tissue_corners(slide, tissue.regions, side, step, settings.least_tissue)
    release_memory()  # pictures of the whole slide came and went, here and where tissue was looked for
    return Tiles(
        corners=corners,
        side=side,
        tile_px=settings.tile_px,
        mpp=settings.mpp,
        level=level,
        read_px=read_px,
        notes=(f"Tiles are enlarged by {100 * (enlarged - 1):.0f} %.",) if enlarged > 1.01 else (),
    )


def reading(slide: Slide, side: int, tile_px: int) -> tuple[int, int]:
    """What to read for a tile: the level with the largest downsample that is fine enough, and the side in its pixels.

    Args:
        slide: The slide.
        side: Of a tile, in pixels of level 0.
        tile_px: Side that it is resized to.
    """
    wanted = max(1.0, side / tile_px) * (1 + _ROUNDING)
    fine = [number for number, level in enumerate(slide.levels) if level.downsample <= wanted]
    level = max(fine, key=lambda number: slide.levels[number].downsample)
    return level, max(1, round(side / slide.levels[level].downsample))


def tissue_shares(mask: Mask, pixel: tuple[float, float], corners: tuple[Points, Points], side: float) -> Points:
    """The share of tissue in each tile of a grid, exact to the mask: pixels cut by an edge count by their area inside.

    Args:
        mask: ``(H, W)`` bool from the slide's upper left corner; beyond it there is no tissue.
        pixel: Width and height of its pixels, in pixels of level 0.
        corners: ``(w,)`` left and ``(h,)`` upper edges of the tiles, in pixels of level 0.
        side: Of a tile.

    Returns:
        ``(h, w)`` float64 within 0 to 1.
    """
    return _shares(_integral(mask), pixel, corners, side)


def _integral(mask: Mask) -> NDArray[np.int32]:
    return np.asarray(cv2.integral(mask.view(np.uint8), sdepth=cv2.CV_32S), np.int32)


def _shares(sums: NDArray[np.int32], pixel: tuple[float, float], corners: tuple[Points, Points], side: float) -> Points:
    # The integral image is linear within a pixel along each axis: between pixels it is interpolated exactly.
    edges_x, edges_y = ((np.stack([edge, edge + side]) / size) for edge, size in zip(corners, pixel, strict=True))
    bands = _between(sums, edges_y[1]) - _between(sums, edges_y[0])  # (h, W + 1)
    tissue = _between(bands.T, edges_x[1]) - _between(bands.T, edges_x[0])  # (w, h)
    return np.asarray(tissue.T * (pixel[0] * pixel[1] / side**2))


def _between(table: NDArray[np.int32] | Points, places: Points) -> Points:
    """Rows of a table at fractional places, its ends beyond it."""
    places = np.clip(places, 0, len(table) - 1)
    first = np.minimum(places.astype(int), max(len(table) - 2, 0))
    share = (places - first)[:, None]
    return np.asarray(table[first] * (1 - share) + table[np.minimum(first + 1, len(table) - 1)] * share)


def _side(slide: Slide, tile_px: int, enlarged: float) -> int:
    """The side of a tile at level 0; where a pixel more or less makes resizing needless, that."""
    side = max(1, round(tile_px / enlarged))
    ready = [round(tile_px * level.downsample) for level in slide.levels]
    return next((each for each in ready if abs(each - side) <= 1), side)


def _tissue_corners(slide: Slide, regions: tuple[Region, ...], side: int, step: int, least: float) -> NDArray[np.int64]:
    if not regions:
        return np.zeros((0, 2), np.int64)
    grid = overview_grid(slide)
    sums = _integral(draw_mask(regions, grid.shape, grid.pixel))
    xs, ys = np.arange(0, slide.size[1], step), np.arange(0, slide.size[0], step)
    found = []
    for part in _parts(ys, max(1, _CELLS // max(len(xs), grid.shape[1]))):
        shares = _shares(sums, grid.pixel, (xs.astype(np.float64), part.astype(np.float64)), side)
        rows, columns = np.nonzero(shares >= max(least - _LEAST, _LEAST))
        found.append(np.column_stack([xs[columns], part[rows]]))
    return np.concatenate(found).astype(np.int64)


def _parts(values: NDArray[np.int64], length: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(values), length):
        yield values[start : start + length]


def _clam_corners(regions: tuple[Region, ...], side: int) -> NDArray[np.int64]:
    found = [np.zeros((0, 2), np.int64), *(_corners_of_region(region, side) for region in regions)]
    corners = np.unique(np.concatenate(found)[:, ::-1], axis=0)  # row by row; a tile of two regions once
    return np.ascontiguousarray(corners[:, ::-1])


def _corners_of_region(region: Region, side: int) -> NDArray[np.int64]:
    """Tiles from the corner of a region to the end of its box, of which one of four points lies in it or on its edge.

    The centre must not lie inside a hole.
    """
    first, last = np.floor(region.outline.min(axis=0)), np.floor(region.outline.max(axis=0))
    xs, ys = (np.arange(first[axis], last[axis] + 1, side) for axis in (0, 1))
    centre, shift = side // 2, side // 2 // 2
    is_kept = np.zeros((len(ys), len(xs)), bool)
    for down in (centre - shift, centre + shift):
        for right in (centre - shift, centre + shift):
            is_kept |= locate(region.outline, xs + right, ys + down) >= 0
    xs_of_centres, ys_of_centres = xs + side / 2, ys + side / 2
    for hole in region.holes:
        low, high = hole.min(axis=0), hole.max(axis=0)
        across = slice(*np.searchsorted(xs_of_centres, (low[0], high[0])))
        along = slice(*np.searchsorted(ys_of_centres, (low[1], high[1])))
        is_kept[along, across] &= locate(hole, xs_of_centres[across], ys_of_centres[along]) <= 0
    rows, columns = np.nonzero(is_kept)
    return np.column_stack([xs[columns], ys[rows]]).astype(np.int64)
