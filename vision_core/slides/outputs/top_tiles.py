"""The sheet of the tiles that a model looked at most, and least: what its result rests on, to look at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vision_core.images.captions import Words, font, with_margin
from vision_core.images.drawing import Picture
from vision_core.results import SlideResult
from vision_core.slides.outputs.heatmap import are_alike, headline, legend, percentile_ranks
from vision_core.slides.reading.slide import Slide

_COLUMNS = 4
_LEAST_PX, _LARGEST_PX = 192, 512  # side of a tile on the sheet: room for its caption, and for the sheet on a screen
_GAP_PX = 12
_TITLE, _CAPTION = 18, 13  # font sizes


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which tiles a sheet shows.

    Attributes:
        most: How many of those with the highest scores.
        least: How many of those with the lowest.
        tile_px: Pixels of a tile as the model saw it, a side.
    """

    most: int = 12
    least: int = 0
    tile_px: int = 256


def pick_tiles(result: SlideResult, count: int, *, lowest: bool = False) -> NDArray[np.int64]:
    """The tiles with the highest scores, of those that overlap the highest alone; of equal ones the first.

    Args:
        result: Tiles and scores.
        count: How many; fewer where the slide has not so many.
        lowest: Those with the lowest scores instead.

    Returns:
        ``(K,)`` indices, most extreme first.
    """
    values = -result.scores.astype(np.float64) if lowest else result.scores.astype(np.float64)
    picked: list[int] = []
    while len(picked) < count and np.isfinite(values).any():
        best = int(np.argmax(values))
        picked.append(best)
        values[(np.abs(result.tiles - result.tiles[best]) < result.tile_side).all(axis=1)] = -np.inf
    return np.array(picked, np.int64)


def draw_sheet(slide: Slide, result: SlideResult, choice: Choice | None = None) -> Picture:
    """Read the chosen tiles and lay them out with rank, percentile and place, the notice below.

    Args:
        slide: The slide that the result is of.
        result: Tiles and scores.
        choice: Which tiles.

    Returns:
        ``(H, W, 3)`` uint8. Without tissue it says so.

    Raises:
        TileError: A tile cannot be read.
    """
    choice = choice or Choice()
    sections = {
        "Looked at most": pick_tiles(result, choice.most),
        "Looked at least": pick_tiles(result, choice.least, lowest=True),
    }
    blocks = [
        _titled(title, _cells(slide, result, picked, choice.tile_px))
        for title, picked in sections.items()
        if len(picked)
    ]
    words = Words(headline=headline(result), lines=_lines(result), model=result.model)
    return with_margin(np.concatenate(blocks or [np.full((1, 1, 3), 255, np.uint8)]), words)


def read_tile(slide: Slide, corner: Sequence[int], side: int, tile_px: int) -> Picture:
    """One tile at ``(x, y)``, ``side`` pixels of level 0 wide, resized by area to ``(tile_px, tile_px, 3)`` uint8."""
    wanted = side / tile_px * (1 + 1e-3)  # pyramids round their downsamples
    level = max(number for number, each in enumerate(slide.levels) if each.downsample <= max(wanted, 1.0))
    read_px = max(1, round(side / slide.levels[level].downsample))
    tile = slide.read(level, int(corner[0]), int(corner[1]), read_px, read_px)
    return _resized(tile, tile_px)


def _lines(result: SlideResult) -> list[str]:
    if len(result) == 0:
        return ["No tissue was found on this slide, so there are no tiles."]
    places = f"Tiles of {result.tile_side * result.mpp:.0f} microns; x, y: upper left corner in pixels of level 0."
    return [places, legend(result)] if are_alike(result.scores) else [places]


def _cells(slide: Slide, result: SlideResult, picked: NDArray[np.int64], tile_px: int) -> list[Picture]:
    percentiles = 100 * percentile_ranks(result.scores)
    order = np.argsort(np.argsort(-result.scores, kind="stable"))
    cells = []
    for index in picked:
        x, y = result.tiles[index]
        captions = (f"{order[index] + 1} of {len(result)}", f"percentile {percentiles[index]:.1f}", f"x {x}, y {y}")
        cells.append(_cell(_shown(read_tile(slide, (x, y), result.tile_side, tile_px)), captions))
    return cells


def _shown(tile: Picture) -> Picture:
    """Small tiles with each pixel repeated, large ones reduced."""
    side = tile.shape[0]
    if side > _LARGEST_PX:
        return _resized(tile, _LARGEST_PX)
    times = math.ceil(_LEAST_PX / side)
    return tile.repeat(times, axis=0).repeat(times, axis=1)


def _resized(tile: Picture, side: int) -> Picture:
    if tile.shape[0] == side:
        return tile
    return np.asarray(cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def _cell(tile: Picture, captions: Sequence[str]) -> Picture:
    side = tile.shape[0]
    cell = Image.new("RGB", (side + _GAP_PX, side + _GAP_PX + 4 * _CAPTION), "white")
    cell.paste(Image.fromarray(tile), (_GAP_PX, 0))
    draw = ImageDraw.Draw(cell)
    for number, caption in enumerate(captions):
        draw.text((_GAP_PX, side + 2 + 1.3 * _CAPTION * number), caption, "black", font(_CAPTION))
    return np.array(cell)


def _titled(title: str, cells: Sequence[Picture]) -> Picture:
    blank = np.full_like(cells[0], 255)
    padded = [*cells, *[blank] * (-len(cells) % _COLUMNS)]
    grid = np.concatenate(
        [np.concatenate(padded[first : first + _COLUMNS], axis=1) for first in range(0, len(padded), _COLUMNS)]
    )
    image = Image.new("RGB", (grid.shape[1] + _GAP_PX, grid.shape[0] + 2 * _TITLE), "white")
    image.paste(Image.fromarray(grid), (0, 2 * _TITLE))
    ImageDraw.Draw(image).text((_GAP_PX, _TITLE), title, "black", font(_TITLE), anchor="lm")
    return np.array(image)
