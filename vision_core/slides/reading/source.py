"""Interface of all slide readers: levels, and regions by position."""

import os
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
    """Error of one region that cannot be read, while others may be."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of a pyramid.

    Attributes:
        width: In pixels.
        height: In pixels.
        downsample: Side of a pixel in pixels of level 0, the mean of both directions.
    """

    width: int
    height: int
    downsample: float

    @property
    def size(self) -> tuple[int, int]:
        """Return ``(width, height)``."""
        return self.width, self.height


class Source(Protocol):
    """Reader of one file, safe to use from several threads."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """Return the levels, finest first."""

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Pixels:
        """Read a region.

        Args:
            level: Index of the level.
            corner: Upper left corner ``(x, y)`` in pixels of level 0.
            size: ``(width, height)`` in pixels of the level.

        Returns:
            ``(height, width, 3)`` uint8, RGB.
        """

    def close(self) -> None:
        """Close the file."""


class FileDescriptor:
    """File descriptor that is closed when its last reader drops it.

    Closed earlier, the same number could already belong to another file.
    """

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


def tile_error(path: Path, level: int, corner: Sequence[float], reason: str) -> TileError:
    """Build the error of a region, with its position at level 0."""
    return TileError(
        f"'{path}': level {level} cannot be read at x {corner[0]:.0f}, y {corner[1]:.0f}: {reason.rstrip('.')}. "
        "Copy or download the slide again, or allow unreadable tiles with read.max_bad_tiles."
    )


def crop_on_white(pixels: Pixels, corner: tuple[int, int], size: tuple[int, int]) -> Pixels:
    """Crop a region of an image in memory, white beyond its edges.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        corner: Upper left corner ``(x, y)`` in the image; may lie outside.
        size: ``(width, height)``.

    Returns:
        ``(height, width, 3)`` uint8.
    """
    region = np.full((size[1], size[0], 3), WHITE, np.uint8)
    (x, y), (height, width) = corner, pixels.shape[:2]
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + size[0], width), min(y + size[1], height)
    if left < right and top < bottom:
        region[top - y : bottom - y, left - x : right - x] = pixels[top:bottom, left:right]
    return region
