"""Regions that begin between two pixels of their level, with the very bytes that OpenSlide gives.

The downsample of a real pyramid is seldom whole (4.0001), so nearly all places of level 0 fall between pixels of a
coarser level. OpenSlide paints tile after tile there, the last first. Each is blended bilinearly in single precision
with nothing beyond its edges, and is added to what lies below only as far as that is transparent; after each tile the
result is rounded to bytes. All of it is done here in the same order, since every rounding is seen in the bytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision_core.slides.reading.source import WHITE, Pixels

_Floats = NDArray[np.float32]
_UNIT = np.float32(1 / 255)
_STEPS = 65536.0  # places are kept in 65536ths of a pixel
_LEVELS = np.float32(256)
_ONE = np.float32(1)
_MOST = np.float32(255)  # the highest of 256 steps holds what is one


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a region begins in its level: whole pixels, and the share of one beyond them."""

    x: int
    y: int
    right: float
    down: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A tile without what lies outside of its level, and its corner in the level."""

    pixels: Pixels
    x: int
    y: int


def split(x: float, y: float) -> Place:
    """The place of a corner given in fractions of pixels."""
    (left, right), (top, down) = (divmod(round(each * _STEPS), int(_STEPS)) for each in (x, y))
    return Place(x=left, y=top, right=right / _STEPS, down=down / _STEPS)


def blend(tiles: Iterable[Placed], place: Place, size: tuple[int, int]) -> Pixels:
    """Paint tiles, the last of them first, and white below.

    Args:
        tiles: All that the region touches, row after row from the last, each from the last column.
        place: Of the region.
        size: Its ``(width, height)``.

    Returns:
        ``(height, width, 3)`` uint8.
    """
    colours = np.zeros((size[1], size[0], 3), np.uint8)
    opacity = np.zeros((size[1], size[0]), np.uint8)
    weights = _weights(place)
    for tile in tiles:
        columns = _covered(tile.x - place.x, tile.pixels.shape[1], size[0])
        rows = _covered(tile.y - place.y, tile.pixels.shape[0], size[1])
        area = (slice(*rows), slice(*columns))
        offset = (place.y + rows[0] - tile.y, place.x + columns[0] - tile.x)
        shape = (rows[1] - rows[0], columns[1] - columns[0])
        share = _blended(_window(np.full(tile.pixels.shape[:2], 255, np.uint8), offset, shape), weights)
        colour = _blended(_window(tile.pixels, offset, shape), weights)
        _add(colours[area], opacity[area], colour, share)
    return colours + (WHITE - opacity)[..., None]


def _weights(place: Place) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Of the four pixels around a place, times 256, which changes no rounding."""
    right, down = np.float32(place.right), np.float32(place.down)
    up, left = _ONE - down, _ONE - right
    return left * up * _LEVELS, right * up * _LEVELS, left * down * _LEVELS, right * down * _LEVELS


def _covered(start: int, length: int, end: int) -> tuple[int, int]:
    """Pixels of the region that a tile has a share in, along one axis: one before its own, since they look ahead."""
    return max(start - 1, 0), min(start + length, end)


def _window(values: Pixels, offset: tuple[int, int], shape: tuple[int, int]) -> _Floats:
    """Shares of one from ``offset`` on, one row and column more than ``shape``; zero outside."""
    (top, left), (height, width) = offset, (shape[0] + 1, shape[1] + 1)
    inside = values[max(top, 0) : top + height, max(left, 0) : left + width]
    if inside.shape[:2] == (height, width):
        return _shares(inside)
    window = np.zeros((height, width, *values.shape[2:]), np.uint8)
    y, x = max(-top, 0), max(-left, 0)
    window[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return _shares(window)


def _shares(values: Pixels) -> _Floats:
    return np.multiply(values, _UNIT, dtype=np.float32)


def _blended(window: _Floats, weights: tuple[np.float32, ...]) -> _Floats:
    blended = window[:-1, :-1] * weights[0]
    shares = np.empty_like(blended)
    for part, weight in zip((window[:-1, 1:], window[1:, :-1], window[1:, 1:]), weights[1:], strict=True):
        blended += np.multiply(part, weight, out=shares)
    return blended


def _add(colours: Pixels, opacity: Pixels, colour: _Floats, share: _Floats) -> None:
    """Put a tile where nothing is yet; only its last row and column, which others share, may hold something."""
    last = [np.s_[-1:, :], np.s_[:-1, -1:]]
    below = [(colours[part].copy(), opacity[part].copy()) for part in last]
    colours[:] = _bytes(colour)
    opacity[:] = _bytes(share)
    for part, (colour_below, opacity_below) in zip(last, below, strict=True):
        covered, own = _shares(opacity_below), share[part]
        free = np.divide((_ONE - covered) * _LEVELS, own, out=np.ones_like(own), where=own > 0)
        taken = np.minimum(free, _ONE)
        colours[part] = _bytes(colour[part] * taken[..., None] + _shares(colour_below) * _LEVELS)
        opacity[part] = _bytes(own * taken + covered * _LEVELS)


def _bytes(values: _Floats) -> Pixels:
    return np.minimum(values, _MOST).astype(np.uint8)
