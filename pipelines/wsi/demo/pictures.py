"""Eight-bit pictures and the fields of numbers between them, for the making of the demo's slides."""

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Floats = NDArray[np.float32]


def blurred(values: Floats, spread_px: float) -> Floats:
    """``(H, W)`` or ``(H, W, channels)`` under a Gaussian of this standard deviation, above 0."""
    return cv2.GaussianBlur(values, (0, 0), spread_px).astype(np.float32, copy=False)


def to_picture(values: Floats) -> Picture:
    """Rounded to 8 bits."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def smooth_field(side: int, detail: int, generator: np.random.Generator) -> Floats:
    """A random field ``(side, side)`` that changes over about ``detail`` pixels, with mean 0 and spread about 1."""
    cells = side // detail + 3
    coarse = generator.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)
