"""Sheets of the tiles with the highest and lowest attention."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vision_core.images.captions import Caption, add_caption, font
from vision_core.images.drawing import Picture
from vision_core.results import SlideResult
from vision_core.slides.outputs.heatmap import is_uniform, percentile_ranks, result_headline
from vision_core.slides.reading.slide import Slide

_COLUMNS = 4
_MIN_PX, _MAX_PX = 192, 512  # side of a tile on the sheet: wide enough for its caption, small enough for a screen
_GAP_PX = 12
_TITLE, _CAPTION = 18, 13  # font sizes


@dataclass(frozen=True, kw_only=True)
class TileSelection:
    """Selection of the tiles that a sheet shows.

    Attributes:
        highest: Number of tiles with the highest scores.
        lowest: Number of tiles with the lowest scores.
        tile_px: Side in pixels of a tile as the model saw it.
    """

    highest: int = 12
    lowest: int = 0
    tile_px: int = 256


def select_tiles(result: SlideResult, count: int, *, lowest: bool = False) -> NDArray[np.int64]:
    """Select the tiles with the highest scores, without overlaps.

    Of equal scores the first tile is selected.

    Args:
        result: Tiles and scores.
        count: Number of tiles; fewer are returned if the slide has fewer.
        lowest: Select the lowest scores instead.

    Returns:
        ``(K,)`` indices, most extreme first.
    """
    values = -result.scores.astype(np.float64) if lowest else result.scores.astype(np.float64)
    selected: list[int] = []
    while len(selected) < count and np.isfinite(values).any():
        best = int(np.argmax(values))
        selected.append(best)
        values[(np.abs(result.tiles - result.tiles[best]) < result.tile_side).all(axis=1)] = -np.inf
    return np.array(selected, np.int64)


def draw_tile_sheet(slide: Slide, result: SlideResult, selection: TileSelection | None = None) -> Picture:
    """Draw the selected tiles with rank, percentile and position, and a caption.

    Args:
        slide: The slide of the result.
        result: Tiles and scores.
        selection: Which tiles.

    Returns:
        ``(H, W, 3)`` uint8; without tissue a caption alone.

    Raises:
        TileError: A tile cannot be read.
    """
    selection = selection or TileSelection()
    sections = {
        "Looked at most": select_tiles(result, selection.highest),
        "Looked at least": select_tiles(result, selection.lowest, lowest=True),
    }
    blocks = [
        _draw_section(title, _draw_cells(slide, result, selected, selection.tile_px))
        for title, selected in sections.items()
        if len(selected)
    ]
    drawn_px = _scale_for_sheet(np.empty((selection.tile_px, selection.tile_px, 3), np.uint8)).shape[0]
    um_per_px = result.mpp * result.tile_side / drawn_px if blocks and result.classes else None
    words = Caption(headline=result_headline(result), lines=_lines(result), model=result.model, um_per_px=um_per_px)
    return add_caption(np.concatenate(blocks or [np.full((1, 1, 3), 255, np.uint8)]), words)


def read_tile(slide: Slide, corner: Sequence[int], side: int, tile_px: int) -> Picture:
    """Read a tile, resized by area to ``(tile_px, tile_px, 3)`` uint8.

    Args:
        slide: The slide.
        corner: Upper left corner ``(x, y)`` in pixels of level 0.
        side: In pixels of level 0.
        tile_px: Side in pixels to which the tile is resized.
    """
    wanted = side / tile_px * (1 + 1e-3)  # pyramids round their downsamples
    level = max(number for number, each in enumerate(slide.levels) if each.downsample <= max(wanted, 1.0))
    read_px = max(1, round(side / slide.levels[level].downsample))
    tile = slide.read(level, int(corner[0]), int(corner[1]), read_px, read_px)
    return _resize(tile, tile_px)


def _lines(result: SlideResult) -> list[str]:
    if len(result) == 0:
        return ["No tissue was found on this slide, so there are no tiles."]
    places = f"Tiles of {result.tile_side * result.mpp:.0f} microns; x, y: upper left corner in pixels of level 0."
    return [places, "The model looked at all tiles alike."] if is_uniform(result.scores) else [places]


def _draw_cells(slide: Slide, result: SlideResult, selected: NDArray[np.int64], tile_px: int) -> list[Picture]:
    percentiles = 100 * percentile_ranks(result.scores)
    order = np.argsort(np.argsort(-result.scores, kind="stable"))
    cells = []
    for index in selected:
        x, y = result.tiles[index]
        captions = (f"{order[index] + 1} of {len(result)}", f"percentile {percentiles[index]:.1f}", f"x {x}, y {y}")
        cells.append(_draw_cell(_scale_for_sheet(read_tile(slide, (x, y), result.tile_side, tile_px)), captions))
    return cells


def _scale_for_sheet(tile: Picture) -> Picture:
    """Scale a tile for the sheet, small ones by repeated pixels."""
    side = tile.shape[0]
    if side > _MAX_PX:
        return _resize(tile, _MAX_PX)
    factor = math.ceil(_MIN_PX / side)
    return tile.repeat(factor, axis=0).repeat(factor, axis=1)


def _resize(tile: Picture, side: int) -> Picture:
    if tile.shape[0] == side:
        return tile
    return np.asarray(cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def _draw_cell(tile: Picture, captions: Sequence[str]) -> Picture:
    side = tile.shape[0]
    cell = Image.new("RGB", (side + _GAP_PX, side + _GAP_PX + 4 * _CAPTION), "white")
    cell.paste(Image.fromarray(tile), (_GAP_PX, 0))
    draw = ImageDraw.Draw(cell)
    for number, caption in enumerate(captions):
        draw.text((_GAP_PX, side + 2 + 1.3 * _CAPTION * number), caption, "black", font(_CAPTION))
    return np.array(cell)


def _draw_section(title: str, cells: Sequence[Picture]) -> Picture:
    blank = np.full_like(cells[0], 255)
    padded = [*cells, *[blank] * (-len(cells) % _COLUMNS)]
    grid = np.concatenate(
        [np.concatenate(padded[first : first + _COLUMNS], axis=1) for first in range(0, len(padded), _COLUMNS)]
    )
    image = Image.new("RGB", (grid.shape[1] + _GAP_PX, grid.shape[0] + 2 * _TITLE), "white")
    image.paste(Image.fromarray(grid), (0, 2 * _TITLE))
    ImageDraw.Draw(image).text((_GAP_PX, _TITLE), title, "black", font(_TITLE), anchor="lm")
    return np.array(image)
