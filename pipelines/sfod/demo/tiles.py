"""Tiling of a large labelled image: windows, and the boxes that belong to each."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SMALLEST_PIECE_PX = 4

Boxes = NDArray[np.float64]  # (M, 4) xyxy, pixels


@dataclass(frozen=True, kw_only=True)
class Window:
    """Rectangle in pixels of an image; right and bottom are excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return self.bottom - self.top

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Crop an image to the window, ``(height, width, 3)``."""
        return image[self.top : self.bottom, self.left : self.right]


def overlapping(area: Window, tile_px: int) -> list[Window]:
    """Lay overlapping windows evenly, at most half a tile apart.

    They are ``tile_px`` wide and high, or as long as a shorter edge of the area.
    """
    return [
        Window(left=left, top=top, right=min(left + tile_px, area.right), bottom=min(top + tile_px, area.bottom))
        for top in _starts(area.top, area.height, tile_px)
        for left in _starts(area.left, area.width, tile_px)
    ]


def partition(area: Window, tile_px: int) -> list[Window]:
    """Partition the area into windows of nearly equal size, about ``tile_px`` wide."""
    rows = _cuts(area.top, area.height, max(1, round(area.height / tile_px)))
    columns = _cuts(area.left, area.width, max(1, round(area.width / tile_px)))
    return [
        Window(left=left, top=top, right=right, bottom=bottom)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]


def halves(area: Window) -> tuple[Window, Window]:
    """Split an area into its upper and lower half."""
    middle = area.top + area.height // 2
    return replace(area, bottom=middle), replace(area, top=middle)


def objects_in(window: Window, boxes: Boxes) -> tuple[Boxes, NDArray[np.bool_]]:
    """Select the boxes inside a window, in its coordinates.

    A box belongs to the one window that holds its centre, so windows of a partition count every box once. A piece of it
    in another window is marked as such, and left out below ``SMALLEST_PIECE_PX``.

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
