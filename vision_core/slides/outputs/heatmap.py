"""Heatmaps: where on a slide a model looked, in colours over a thumbnail.

Colours show ranks within the slide, not scores: attention has no unit, and one tile with a hundred times the attention
of the next would leave all others in one colour.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_core.images.captions import Words, with_margin
from vision_core.images.drawing import OPACITY, Picture, blend, colour_map
from vision_core.results import SlideResult

THUMBNAIL_PX = 1500

_ALIKE = 1e-4  # relative spread of scores below which their order is the rounding of the arithmetic
_STEPS = 2**16 - 1  # ranks are summed as integers, so that tiles alike are alike wherever they overlap


def percentile_ranks(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """The share of the scores ``(N,)`` below each, those equal to it counted half: ``(N,)`` within 0 to 1.

    Scores all alike but for rounding get one half each, as equal ones do.
    """
    if are_alike(scores):
        return np.full(len(scores), 0.5)
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray(((np.cumsum(counts) - counts / 2) / len(scores))[which])


def are_alike(scores: NDArray[np.floating]) -> bool:
    """Whether scores ``(N,)`` differ by no more than rounding; one score alone does not."""
    return len(scores) == 0 or bool(np.ptp(scores) <= _ALIKE * np.abs(scores).max())


def score_map(result: SlideResult, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Percentile ranks of the tiles as an image of the slide; where tiles overlap, their mean.

    Args:
        result: Tiles and scores.
        shape: ``(height, width)`` of the image, which covers the whole slide.

    Returns:
        ``shape`` float32 within 0 to 1; NaN where no tile is.
    """
    return _rows_of_map(_footprints(result, shape), 0, shape)


def heat_layer(result: SlideResult, shape: tuple[int, int]) -> Picture:
    """The heatmap alone: ``(height, width, 4)`` uint8 RGBA, opaque on tiles and transparent elsewhere.

    Args:
        result: Tiles and scores.
        shape: ``(height, width)`` of the image, which covers the whole slide.
    """
    return _coloured(score_map(result, shape))


def blend_rows(picture: Picture, result: SlideResult, opacity: float = OPACITY, rows: int = 256) -> Picture:
    """``blend(picture, heat_layer(...), opacity)``, some rows at a time, in little more memory than the result's."""
    shape = picture.shape[:2]
    footprints = _footprints(result, shape)
    blended = np.empty_like(picture)
    for top in range(0, shape[0], rows):
        part = picture[top : top + rows]
        blended[top : top + rows] = blend(part, _coloured(_rows_of_map(footprints, top, part.shape[:2])), opacity)
    return blended


def draw_heatmap(thumbnail: Picture, result: SlideResult, opacity: float = OPACITY) -> Picture:
    """The heatmap over the slide, and below it the result in words, the scale and the notice.

    The picture does not name the slide: file names may hold names of patients.

    Args:
        thumbnail: ``(H, W, 3)`` uint8, of the whole slide.
        result: What a model made of it.
        opacity: Of the heatmap over the thumbnail.

    Returns:
        ``(H + strip, W, 3)`` uint8, wider where the thumbnail is very narrow.
    """
    picture = thumbnail if len(result) == 0 else blend_rows(thumbnail, result, opacity)
    return with_margin(picture, words(result))


def words(result: SlideResult) -> Words:
    """What stands below a heatmap: the result in words and the scale; without tissue, that there is none."""
    if len(result) == 0:
        lines = ["No tissue was found on this slide, so nothing was scored."]
        return Words(headline=headline(result), lines=lines, model=result.model)
    return Words(headline=headline(result), lines=[legend(result)], colours=colour_map(), model=result.model)


def headline(result: SlideResult) -> str:
    """The result in words, without numbers."""
    return f"Result: {result.category}"


def legend(result: SlideResult) -> str:
    """What the ranks of the tiles mean."""
    if are_alike(result.scores):
        return "The model looked at all tiles alike."
    return "Colour: how much the model looked at each tile, ranked among the tiles of this slide."


class _Footprints(NamedTuple):
    """Tiles in pixels of an image: edges ``(N,)``, ends excluded, and their ranks in steps."""

    left: NDArray[np.int32]
    top: NDArray[np.int32]
    right: NDArray[np.int32]
    bottom: NDArray[np.int32]
    steps: NDArray[np.int32]


def _footprints(result: SlideResult, shape: tuple[int, int]) -> _Footprints:
    top, bottom = _edges(result.tiles[:, 1], result.tile_side, shape[0] / result.size[0], shape[0])
    left, right = _edges(result.tiles[:, 0], result.tile_side, shape[1] / result.size[1], shape[1])
    steps = np.rint(percentile_ranks(result.scores) * _STEPS).astype(np.int32)
    return _Footprints(left, top, right, bottom, steps)


def _edges(starts: NDArray[np.int64], side: int, scale: float, end: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Both edges of tiles along one axis; neighbours share theirs, and each tile has a pixel at least."""
    first = np.clip(np.rint(starts * scale), 0, end - 1).astype(np.int32)
    last = np.clip(np.rint((starts + side) * scale), 0, end).astype(np.int32)
    return first, np.maximum(last, first + 1)


def _rows_of_map(tiles: _Footprints, first_row: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    is_here = (tiles.bottom > first_row) & (tiles.top < first_row + shape[0])
    here = _Footprints(*(each[is_here] for each in tiles))
    sums = _added_up(here, here.steps, first_row, shape)
    counts = _added_up(here, np.ones_like(here.steps), first_row, shape)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / (counts * np.float32(_STEPS)), np.float32)


def _added_up(
    tiles: _Footprints, weights: NDArray[np.int32], first_row: int, shape: tuple[int, int]
) -> NDArray[np.int32]:
    """The sum of the weights of the tiles over each pixel: their corners are marked, then summed along both axes."""
    top, bottom = (np.clip(edge - first_row, 0, shape[0]) for edge in (tiles.top, tiles.bottom))
    marks = np.zeros((shape[0] + 1, shape[1] + 1), np.int32)
    for rows, columns, signed in (
        (top, tiles.left, weights),
        (top, tiles.right, -weights),
        (bottom, tiles.left, -weights),
        (bottom, tiles.right, weights),
    ):
        np.add.at(marks.reshape(-1), rows * marks.shape[1] + columns, signed)
    for axis in (0, 1):
        np.cumsum(marks, axis=axis, out=marks)
    return marks[:-1, :-1]


def _coloured(ranks: NDArray[np.float32]) -> Picture:
    is_tile = np.isfinite(ranks)
    opaque = np.column_stack([colour_map(), np.full(256, 255, np.uint8)])
    layer = opaque[np.rint(np.nan_to_num(ranks) * 255).astype(np.uint8)]
    layer[~is_tile] = 0
    return layer
