"""Slides painted for a test: real pyramidal files without loss, of glass and stained patches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyvips
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom

GLASS = 243
EOSIN, HAEMATOXYLIN = (214, 130, 175), (130, 95, 160)


def glass(height: int, width: int) -> Picture:
    """Nearly white, with a little grain."""
    grain = np.random.default_rng(0).integers(-2, 3, (height, width, 1))
    return np.repeat(GLASS + grain, 3, axis=2).astype(np.uint8)


def stain(
    picture: Picture, boxes: Sequence[Box], colours: Sequence[tuple[int, int, int]] = (EOSIN, HAEMATOXYLIN)
) -> Picture:
    """A picture with boxes of tissue: grains of the colours, two pixels wide."""
    draws = np.random.default_rng(1)
    painted = picture.copy()
    for left, top, right, bottom in boxes:
        shape = (-(-(bottom - top) // 2), -(-(right - left) // 2))
        grains = np.array(colours, np.uint8)[draws.integers(0, len(colours), shape)]
        painted[top:bottom, left:right] = grains.repeat(2, axis=0).repeat(2, axis=1)[: bottom - top, : right - left]
    return painted


def write_slide(path: Path, picture: Picture, mpp: float = 2.0, has_pyramid: bool = True) -> Path:
    """Write a picture as a slide; the pyramid halves until a tile holds the whole."""
    options = {"tile": True, "pyramid": has_pyramid, "compression": "none", "tile_width": 128, "tile_height": 128}
    image = pyvips.Image.new_from_array(picture)
    image.tiffsave(str(path), xres=1000 / mpp, yres=1000 / mpp, resunit="cm", **options)
    return path
