"""Cutting one large labelled image into tiles: which windows, and which boxes each of them answers for."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SMALLEST_PIECE_PX = 4

Boxes = NDArray[np.float64]  # (M, 4) xyxy, pixels


@dataclass(frozen=True, kw_only=True)
class Window:
    """A rectangle in pixels of an image; right and bottom are excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels inside, ``(height, width, 3)``."""
        return image[self.top : self.bottom, self.left : self.right]


def overlapping(area: Window, tile_px: int) -> list[Window]:
    """Windows of ``tile_px`` (or a whole shorter edge of the area), evenly spaced, half a tile apart at most."""
    return [
        Window(left=left, top=top, right=min(left + tile_px, area.right), bottom=min(top + tile_px, area.bottom))
        for top in _starts(area.top, area.height, tile_px)
        for left in _starts(area.left, area.width, tile_px)
    ]


def partition(area: Window, tile_px: int) -> list[Window]:
    """Windows that cover every pixel of the area once, as equal and as near to ``tile_px`` as they can be."""
    rows = _cuts(area.top, area.height, max(1, round(area.height / tile_px)))
    columns = _cuts(area.left, area.width, max(1, round(area.width / tile_px)))
    return [
        Window(left=left, top=top, right=right, bottom=bottom)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]


def halves(area: Window) -> tuple[Window, Window]:
    """The upper and the lower half."""
    middle = area.top + area.height // 2
    return replace(area, bottom=middle), replace(area, top=middle)


def objects_in(window: Window, boxes: Boxes) -> tuple[Boxes, NDArray[np.bool_]]:
    """The boxes as a window sees them.

    A box belongs to the one window that holds its centre, so windows of a partition count every box once. Where only a
    piece of it reaches, the piece is told apart, and left out below ``SMALLEST_PIECE_PX``.

    Returns:
        ``(K, 4)`` boxes, moved to the window's corner and cut at its edges, and ``(K,)`` whether each is only a piece.
    """
    corner = np.array([window.left, window.top] * 2, dtype=np.float64)
    extent = np.array([window.width, window.height], dtype=np.float64)
    moved = boxes - corner
    centres = (moved[:, :2] + moved[:, 2:]) / 2
    cut = np.clip(moved, 0, np.tile(extent, 2))
    is_own = np.all((centres >= 0) & (centres < extent), axis=1)
    keep = is_own | np.all(cut[:, 2:] - cut[:, :2] >= SMALLEST_PIECE_PX, axis=1)
    return cut[keep], ~is_own[keep]


def _starts(first: int, length: int, tile_px: int) -> list[int]:
    room = max(0, length - tile_px)
    steps = -(-room // max(1, tile_px // 2))
    return [first + room * step // max(1, steps) for step in range(steps + 1)]


def _cuts(first: int, length: int, parts: int) -> list[int]:
    return [first + length * part // parts for part in range(parts + 1)]
