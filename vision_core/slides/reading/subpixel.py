"""Regions that begin between two pixels, with OpenSlide's exact bytes.

The downsample of a real pyramid is seldom whole (4.0001), so nearly all positions of level 0 fall between pixels of a
coarser level. OpenSlide composites the tiles there in reverse order. Each is interpolated bilinearly in single
precision, transparent beyond its edges, and is added only where the pixels below are not yet opaque; after each tile
the result is rounded to bytes. This file does the same steps in the same order, since each rounding shows in the bytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision_core.slides.reading.source import WHITE, Pixels

_Floats = NDArray[np.float32]
_UNIT = np.float32(1 / 255)
_STEPS = 65536.0  # positions are rounded to 65536ths of a pixel
_LEVELS = np.float32(256)
_ONE = np.float32(1)
_MAX_BYTE = np.float32(255)  # of a byte: an opacity of one, 256 of 256, is stored as 255


@dataclass(frozen=True, kw_only=True)
class SubpixelPosition:
    """Position in a level: whole pixels, and the fractions beyond them."""

    x: int
    y: int
    right: float
    down: float


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionedTile:
    """Tile cut at the edges of its level, with its corner."""

    pixels: Pixels
    x: int
    y: int


def subpixel_position(x: float, y: float) -> SubpixelPosition:
    """Split fractional coordinates into whole pixels and fractions."""
    (left, right), (top, down) = (divmod(round(each * _STEPS), int(_STEPS)) for each in (x, y))
    return SubpixelPosition(x=left, y=top, right=right / _STEPS, down=down / _STEPS)


def composite_tiles(tiles: Iterable[PositionedTile], position: SubpixelPosition, size: tuple[int, int]) -> Pixels:
    """Composite tiles into a region over white.

    Args:
        tiles: All tiles that the region touches, in reverse order: last row first, each from its last column.
        position: Position of the region's upper left corner.
        size: ``(width, height)`` of the region.

    Returns:
        ``(height, width, 3)`` uint8.
    """
    colours = np.zeros((size[1], size[0], 3), np.uint8)
    opacity = np.zeros((size[1], size[0]), np.uint8)
    weights = _bilinear_weights(position)
    for tile in tiles:
        columns = _covered_range(tile.x - position.x, tile.pixels.shape[1], size[0])
        rows = _covered_range(tile.y - position.y, tile.pixels.shape[0], size[1])
        area = (slice(*rows), slice(*columns))
        offset = (position.y + rows[0] - tile.y, position.x + columns[0] - tile.x)
        shape = (rows[1] - rows[0], columns[1] - columns[0])
        share = _interpolate(_pad_to_window(np.full(tile.pixels.shape[:2], 255, np.uint8), offset, shape), weights)
        colour = _interpolate(_pad_to_window(tile.pixels, offset, shape), weights)
        _composite_tile(colours[area], opacity[area], colour, share)
    return colours + (WHITE - opacity)[..., None]


def _bilinear_weights(position: SubpixelPosition) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Compute bilinear weights times 256, which changes no rounding."""
    right, down = np.float32(position.right), np.float32(position.down)
    up, left = _ONE - down, _ONE - right
    return left * up * _LEVELS, right * up * _LEVELS, left * down * _LEVELS, right * down * _LEVELS


def _covered_range(start: int, length: int, end: int) -> tuple[int, int]:
    """Compute the range of a region that a tile covers, per axis.

    It begins one pixel before the tile, since each pixel is interpolated with the next one.
    """
    return max(start - 1, 0), min(start + length, end)


def _pad_to_window(values: Pixels, offset: tuple[int, int], shape: tuple[int, int]) -> _Floats:
    """Crop a window one row and column larger than ``shape``, zero outside."""
    (top, left), (height, width) = offset, (shape[0] + 1, shape[1] + 1)
    inside = values[max(top, 0) : top + height, max(left, 0) : left + width]
    if inside.shape[:2] == (height, width):
        return _to_fractions(inside)
    window = np.zeros((height, width, *values.shape[2:]), np.uint8)
    y, x = max(-top, 0), max(-left, 0)
    window[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return _to_fractions(window)


def _to_fractions(values: Pixels) -> _Floats:
    return np.multiply(values, _UNIT, dtype=np.float32)


def _interpolate(window: _Floats, weights: tuple[np.float32, ...]) -> _Floats:
    blended = window[:-1, :-1] * weights[0]
    shares = np.empty_like(blended)
    for part, weight in zip((window[:-1, 1:], window[1:, :-1], window[1:, 1:]), weights[1:], strict=True):
        blended += np.multiply(part, weight, out=shares)
    return blended


def _composite_tile(colours: Pixels, opacity: Pixels, colour: _Floats, share: _Floats) -> None:
    """Add a tile to a region in place.

    Only its last row and column, which it shares with tiles added before, may already hold something.
    """
    last = [np.s_[-1:, :], np.s_[:-1, -1:]]
    below = [(colours[part].copy(), opacity[part].copy()) for part in last]
    colours[:] = _to_bytes(colour)
    opacity[:] = _to_bytes(share)
    for part, (colour_below, opacity_below) in zip(last, below, strict=True):
        covered, own = _to_fractions(opacity_below), share[part]
        free = np.divide((_ONE - covered) * _LEVELS, own, out=np.ones_like(own), where=own > 0)
        taken = np.minimum(free, _ONE)
        colours[part] = _to_bytes(colour[part] * taken[..., None] + _to_fractions(colour_below) * _LEVELS)
        opacity[part] = _to_bytes(own * taken + covered * _LEVELS)


def _to_bytes(values: _Floats) -> Pixels:
    return np.minimum(values, _MAX_BYTE).astype(np.uint8)
