"""What every way of reading a slide has: levels, and pixels by level and place or an error that names the place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError

Pixels = NDArray[np.uint8]
WHITE = 255


class TileError(InputError):
    """A place of a slide cannot be read; other places may be."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of a pyramid.

    Attributes:
        width: Pixels.
        height: Pixels.
        downsample: Pixels of level 0 to one of this level, the mean of both directions.
    """

    width: int
    height: int
    downsample: float


class Source(Protocol):
    """Pixels of one file, for several threads at a time."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """Resolutions, finest first."""

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Pixels:
        """``(height, width, 3)`` uint8 at ``(x, y)`` of level 0, ``(width, height)`` pixels of ``level`` large."""

    def close(self) -> None:
        """Close the file."""


def tile_error(path: Path, level: int, corner: Sequence[float], reason: str) -> TileError:
    """The error of a place, named by pixels of level 0."""
    return TileError(
        f"'{path}': level {level} cannot be read at x {corner[0]:.0f}, y {corner[1]:.0f}: {reason.rstrip('.')}. "
        "Copy or download the slide again, or allow unreadable tiles with read.max_bad_tiles."
    )


def place_on_white(pixels: Pixels, corner: tuple[int, int], size: tuple[int, int]) -> Pixels:
    """The region of an image that lies in memory.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        corner: ``(x, y)`` in the image; may lie outside.
        size: ``(width, height)``.

    Returns:
        ``(height, width, 3)`` uint8, white outside of the image.
    """
    region = np.full((size[1], size[0], 3), WHITE, np.uint8)
    (x, y), (height, width) = corner, pixels.shape[:2]
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + size[0], width), min(y + size[1], height)
    if left < right and top < bottom:
        region[top - y : bottom - y, left - x : right - x] = pixels[top:bottom, left:right]
    return region
