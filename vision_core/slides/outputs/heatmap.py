"""Heatmaps over a thumbnail of the slide, on a scale that is the same for every slide.

Ranks within a slide would make the highest tile of every slide glow, also where nothing is to be seen. What is shown
instead has a unit. A network that sums over tiles gives the *evidence* of each (``SlideResult.evidence``): attention
relative to uniform attention ``1 / N``, times what the tile's content says, in log-odds. Attention alone would not do:
it sums to one on every slide, so that some tile of a normal slide always has much of it; times the content, that tile
stays pale. Evidence for a class is orange, for the other ones blue, in doublings from 2 to 64. Below 2 there is no
colour: a slide whose tiles all had an evidence of 2 would be called with 88 %. From 16 on a tile *stands out*: were all
tiles like it, no doubt would be left. A network that does not sum over tiles (TransMIL) gives no evidence; attention
relative to uniform attention is shown then, in doublings from 1 to 32, and a tile stands out from 8 on.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_core.images.captions import Caption
from vision_core.images.drawing import OPACITY, ORANGE, Picture, blend
from vision_core.results import DECLINED, SlideResult

THUMBNAIL_PX = 1500

_BLUE = (0, 114, 178)  # with orange, of Okabe and Ito's palette: distinct with every common colour blindness
_UNIFORM_SPREAD = 1e-4  # relative spread of scores below which their order is due to rounding
_GLASS = 230  # least value of all channels of a pixel without tissue
_STEPS = 2**16 - 1  # heat is summed as integers, so that the mean of equal heat is exact where tiles overlap
Mask = NDArray[np.bool_]


class Scale(NamedTuple):
    """Scale of colours: none up to ``lowest``, full from ``highest`` on."""

    lowest: float
    highest: float

    @property
    def stands_out(self) -> float:
        """Strength from which on a tile stands out."""
        return self.highest / 4

    def heat(self, strengths: NDArray[np.floating]) -> NDArray[np.float64]:
        """Place strengths ``(N,)`` on the scale: 0 none, 1 full, negative for the other classes."""
        size = np.maximum(np.abs(strengths), self.lowest) / self.lowest
        return np.asarray(np.sign(strengths) * np.minimum(np.log(size) / np.log(self.highest / self.lowest), 1))


EVIDENCE_SCALE, ATTENTION_SCALE = Scale(2, 64), Scale(1, 32)


def scale_of(result: SlideResult) -> Scale:
    """Return the scale on which a result is drawn."""
    return ATTENTION_SCALE if result.evidence is None else EVIDENCE_SCALE


def tile_strengths(result: SlideResult) -> NDArray[np.float64]:
    """Compute what the colours of tiles show ``(N,)``: evidence, or else attention relative to uniform attention."""
    if result.evidence is not None:
        return result.evidence.astype(np.float64)
    scores = result.scores.astype(np.float64)
    if is_uniform(scores):
        return np.ones(len(scores))
    return np.clip(scores, 0, None) / max(float(np.abs(scores).mean()), np.finfo(np.float64).tiny)


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


def heat_map(result: SlideResult, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Draw the heat of tiles as an image, averaged where they overlap.

    Args:
        result: Tiles and scores.
        shape: ``(height, width)`` of the image, which covers the whole slide.

    Returns:
        ``shape`` float32 within -1 to 1; NaN outside of tiles.
    """
    return _mean_heat(_footprints(result, shape), 0, shape)


def heatmap_layer(result: SlideResult, shape: tuple[int, int], tissue: Mask | None = None) -> Picture:
    """Draw the heatmap as a layer, the more opaque the hotter a tile, and transparent elsewhere.

    Args:
        result: Tiles and scores.
        shape: ``(height, width)`` of the image, which covers the whole slide.
        tissue: ``shape``, where to colour tiles; None: all of them.

    Returns:
        ``(height, width, 4)`` uint8 RGBA.
    """
    return _colour(heat_map(result, shape), tissue)


def overlay_heatmap(
    picture: Picture, result: SlideResult, opacity: float = OPACITY, rows: int = 256, tissue: Mask | None = None
) -> Picture:
    """Blend the heatmap over a picture of the slide, in row blocks.

    Equal to ``blend(picture, heatmap_layer(...), opacity)`` in less memory.
    """
    shape = picture.shape[:2]
    footprints = _footprints(result, shape)
    blended = np.empty_like(picture)
    for top in range(0, shape[0], rows):
        part = picture[top : top + rows]
        here = None if tissue is None else tissue[top : top + rows]
        blended[top : top + rows] = blend(part, _colour(_mean_heat(footprints, top, part.shape[:2]), here), opacity)
    return blended


def not_glass(picture: Picture) -> Mask:
    """Find the pixels ``(H, W)`` of a picture ``(H, W, 3)`` that are darker than glass: others get no colour."""
    return np.asarray(picture.min(axis=2) < _GLASS)


def heatmap_caption(result: SlideResult, width: int) -> Caption:
    """Compose the caption of a heatmap that is ``width`` pixels wide: scale, result and colours.

    Where no class may be spoken of, nothing is measured either: there is no scale bar. Nor is the slide named, since
    file names may hold names of patients.
    """
    um_per_px = result.mpp * result.size[1] / width if result.classes else None
    if len(result) == 0:
        lines = ["No tissue was found on this slide, so nothing was scored."]
        return Caption(headline=result_headline(result), lines=lines, model=result.model, um_per_px=um_per_px)
    return Caption(
        headline=result_headline(result),
        um_per_px=um_per_px,
        lines=[*filter(None, [standing(result)]), colour_legend(result)],
        colours=_scale_bar(has_evidence=result.evidence is not None),
        ends=_ends(result),
        model=result.model,
    )


def result_headline(result: SlideResult) -> str:
    """Describe the result in words, without numbers."""
    return f"Result: {result.verdict}"


def standing(result: SlideResult) -> str:
    """Say whether tiles stand out, where a class is called; else empty.

    Beside a result that is declined, they would speak for a class.
    """
    is_called = result.classes and result.category not in DECLINED
    return prominence(result) if is_called else ""


def prominence(result: SlideResult) -> str:
    """Say whether tiles stand out, and for which class."""
    strengths = tile_strengths(result)
    bound = scale_of(result).stands_out
    standing = [(int((strengths >= bound).sum()), 0), (int((strengths <= -bound).sum()), 1)]
    found = [(count, side) for count, side in standing if count]
    if not found:
        is_alike = result.evidence is None and is_uniform(result.scores)
        return "The model looked at all tiles alike." if is_alike else "No tile stands out."
    if result.evidence is None:
        return f"{_tiles(found[0][0])} out by the attention that the model paid."
    names = side_names(result)
    return " ".join(f"{_tiles(count)} out for {names[side]}." for count, side in found)


def colour_legend(result: SlideResult) -> str:
    """Explain the colours of tiles."""
    scale = scale_of(result)
    bounds = f"none below {scale.lowest:g}, full from {scale.highest:g} on, the same on every slide"
    if result.evidence is None:
        return f"Colour: attention to a tile, as a multiple of the mean over this slide; {bounds}."
    return f"Colour: how much a tile speaks for a class, its attention times its content, in log-odds; {bounds}."


def side_names(result: SlideResult) -> tuple[str, str]:
    """Name what positive and negative evidence speak for, classes in quotes."""
    others = [name for name in result.classes if name != result.evidence_for]
    other = f"'{result.titles.get(others[0], others[0])}'" if len(others) == 1 else "other classes"
    return f"'{result.titles.get(result.evidence_for, result.evidence_for)}'", other


def blended_colour(placed: float) -> list[int]:
    """Return the colour ``[red, green, blue]`` of a place on the scale, over white."""
    layer = _colour(np.array([[placed]], np.float32), None)
    return [int(each) for each in blend(np.full((1, 1, 3), 255, np.uint8), layer, 1.0)[0, 0]]


def _tiles(count: int) -> str:
    return "1 tile stands" if count == 1 else f"{count} tiles stand"


def _ends(result: SlideResult) -> tuple[str, str]:
    if result.evidence is None:
        return "mean", f"{ATTENTION_SCALE.highest:g} times"
    positive, negative = side_names(result)
    return f"for {negative}", f"for {positive}"


def _scale_bar(*, has_evidence: bool) -> Picture:
    """Draw the colours of the scale over white, ``(256, 3)``."""
    layer = _colour(np.linspace(-1 if has_evidence else 0, 1, 256, dtype=np.float32)[None], None)
    return np.asarray(blend(np.full((1, 256, 3), 255, np.uint8), layer, 1.0)[0], np.uint8)


class _Footprints(NamedTuple):
    """Tiles in an image: half-open edges ``(N,)`` and heat in integer steps."""

    left: NDArray[np.int32]
    top: NDArray[np.int32]
    right: NDArray[np.int32]
    bottom: NDArray[np.int32]
    steps: NDArray[np.int32]


def _footprints(result: SlideResult, shape: tuple[int, int]) -> _Footprints:
    top, bottom = _edges(result.tiles[:, 1], result.tile_side, shape[0] / result.size[0], shape[0])
    left, right = _edges(result.tiles[:, 0], result.tile_side, shape[1] / result.size[1], shape[1])
    steps = np.rint(scale_of(result).heat(tile_strengths(result)) * _STEPS).astype(np.int32)
    return _Footprints(left, top, right, bottom, steps)


def _edges(starts: NDArray[np.int64], side: int, scale: float, end: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Compute both edges of tiles along one axis.

    Adjacent tiles share an edge, and each tile covers at least one pixel.
    """
    first = np.clip(np.rint(starts * scale), 0, end - 1).astype(np.int32)
    last = np.clip(np.rint((starts + side) * scale), 0, end).astype(np.int32)
    return first, np.maximum(last, first + 1)


def _mean_heat(tiles: _Footprints, first_row: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    is_here = (tiles.bottom > first_row) & (tiles.top < first_row + shape[0])
    here = _Footprints(*(each[is_here] for each in tiles))
    sums = _accumulate(here, here.steps, first_row, shape)
    counts = _accumulate(here, np.ones_like(here.steps), first_row, shape)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / (counts * np.float32(_STEPS)), np.float32)


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


def _colour(found: NDArray[np.float32], tissue: Mask | None) -> Picture:
    """Colour heat ``(H, W)`` as RGBA: its sign by the colour, its size by the opacity."""
    is_coloured = np.isfinite(found) if tissue is None else np.isfinite(found) & tissue
    alpha = np.rint(np.abs(np.where(is_coloured, found, 0)) * 255).astype(np.uint8)
    layer = np.empty((*found.shape, 4), np.uint8)
    layer[..., :3] = np.array(ORANGE, np.uint8)
    layer[np.nan_to_num(found) < 0, :3] = _BLUE
    layer[..., 3] = alpha
    layer[alpha == 0] = 0
    return layer
