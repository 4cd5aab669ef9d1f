"""Heatmaps of attention over a thumbnail of the slide.

Colours show ranks within the slide, not scores: attention has no unit, and a single tile with a hundred times the
attention of the next would leave all others in one colour.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_core.images.captions import Caption, add_caption
from vision_core.images.drawing import OPACITY, Picture, blend, colour_map
from vision_core.results import SlideResult

THUMBNAIL_PX = 1500

_UNIFORM_SPREAD = 1e-4  # relative spread of scores below which their order is due to rounding
_RANK_STEPS = 2**16 - 1  # ranks are summed as integers, so that the mean of equal ranks is exact where tiles overlap


def percentile_ranks(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute percentile ranks ``(N,)`` within 0 to 1 of scores ``(N,)``.

    The rank is the share of scores below, with equal scores counted half. Uniform scores (``is_uniform``) all get one
    half.
    """
    if is_uniform(scores):
        return np.full(len(scores), 0.5)
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray(((np.cumsum(counts) - counts / 2) / len(scores))[inverse])


def is_uniform(scores: NDArray[np.floating]) -> bool:
    """Return whether scores ``(N,)`` differ by no more than rounding."""
    return len(scores) == 0 or bool(np.ptp(scores) <= _UNIFORM_SPREAD * np.abs(scores).max())


def rank_map(result: SlideResult, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Draw percentile ranks as an image, averaged where tiles overlap.

    Args:
        result: Tiles and scores.
        shape: ``(height, width)`` of the image, which covers the whole slide.

    Returns:
        ``shape`` float32 within 0 to 1; NaN outside of tiles.
    """
    return _mean_ranks(_footprints(result, shape), 0, shape)


def heatmap_layer(result: SlideResult, shape: tuple[int, int]) -> Picture:
    """Draw the heatmap as a layer, opaque on tiles and transparent elsewhere.

    Args:
        result: Tiles and scores.
        shape: ``(height, width)`` of the image, which covers the whole slide.

    Returns:
        ``(height, width, 4)`` uint8 RGBA.
    """
    return _colour_ranks(rank_map(result, shape))


def overlay_heatmap(picture: Picture, result: SlideResult, opacity: float = OPACITY, rows: int = 256) -> Picture:
    """Blend the heatmap over a picture of the slide, in row blocks.

    Equal to ``blend(picture, heatmap_layer(...), opacity)`` in less memory.
    """
    shape = picture.shape[:2]
    footprints = _footprints(result, shape)
    blended = np.empty_like(picture)
    for top in range(0, shape[0], rows):
        part = picture[top : top + rows]
        blended[top : top + rows] = blend(part, _colour_ranks(_mean_ranks(footprints, top, part.shape[:2])), opacity)
    return blended


def draw_heatmap(thumbnail: Picture, result: SlideResult, opacity: float = OPACITY) -> Picture:
    """Draw the heatmap over the slide, with a caption.

    The picture does not name the slide, since file names may hold names of patients.

    Args:
        thumbnail: ``(H, W, 3)`` uint8, of the whole slide.
        result: Tiles, scores and category.
        opacity: Of the heatmap over the thumbnail.

    Returns:
        ``(H + caption, W, 3)`` uint8, wider if the thumbnail is very narrow.
    """
    picture = thumbnail if len(result) == 0 else overlay_heatmap(thumbnail, result, opacity)
    return add_caption(picture, heatmap_caption(result))


def heatmap_caption(result: SlideResult) -> Caption:
    """Compose the caption of a heatmap: result and colour scale."""
    if len(result) == 0:
        lines = ["No tissue was found on this slide, so nothing was scored."]
        return Caption(headline=result_headline(result), lines=lines, model=result.model)
    return Caption(
        headline=result_headline(result), lines=[colour_legend(result)], colours=colour_map(), model=result.model
    )


def result_headline(result: SlideResult) -> str:
    """Describe the result in words, without numbers."""
    return f"Result: {result.category}"


def colour_legend(result: SlideResult) -> str:
    """Explain the colours of tiles."""
    if is_uniform(result.scores):
        return "The model looked at all tiles alike."
    return "Colour: how much the model looked at each tile, ranked among the tiles of this slide."


class _Footprints(NamedTuple):
    """Tiles in an image: half-open edges ``(N,)`` and integer ranks."""

    left: NDArray[np.int32]
    top: NDArray[np.int32]
    right: NDArray[np.int32]
    bottom: NDArray[np.int32]
    steps: NDArray[np.int32]


def _footprints(result: SlideResult, shape: tuple[int, int]) -> _Footprints:
    top, bottom = _edges(result.tiles[:, 1], result.tile_side, shape[0] / result.size[0], shape[0])
    left, right = _edges(result.tiles[:, 0], result.tile_side, shape[1] / result.size[1], shape[1])
    steps = np.rint(percentile_ranks(result.scores) * _RANK_STEPS).astype(np.int32)
    return _Footprints(left, top, right, bottom, steps)


def _edges(starts: NDArray[np.int64], side: int, scale: float, end: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Compute both edges of tiles along one axis.

    Adjacent tiles share an edge, and each tile covers at least one pixel.
    """
    first = np.clip(np.rint(starts * scale), 0, end - 1).astype(np.int32)
    last = np.clip(np.rint((starts + side) * scale), 0, end).astype(np.int32)
    return first, np.maximum(last, first + 1)


def _mean_ranks(tiles: _Footprints, first_row: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    is_here = (tiles.bottom > first_row) & (tiles.top < first_row + shape[0])
    here = _Footprints(*(each[is_here] for each in tiles))
    sums = _accumulate(here, here.steps, first_row, shape)
    counts = _accumulate(here, np.ones_like(here.steps), first_row, shape)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / (counts * np.float32(_RANK_STEPS)), np.float32)


def _accumulate(
    tiles: _Footprints, weights: NDArray[np.int32], first_row: int, shape: tuple[int, int]
) -> NDArray[np.int32]:
    """Sum the weights of tiles over each pixel, by difference arrays."""
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


def _colour_ranks(ranks: NDArray[np.float32]) -> Picture:
    is_tile = np.isfinite(ranks)
    opaque = np.column_stack([colour_map(), np.full(256, 255, np.uint8)])
    layer = opaque[np.rint(np.nan_to_num(ranks) * 255).astype(np.uint8)]
    layer[~is_tile] = 0
    return layer
