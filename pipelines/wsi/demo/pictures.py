"""Eight-bit pictures and float fields, for the synthesis of the demo slides."""

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Floats = NDArray[np.float32]


def blurred(values: Floats, spread_px: float) -> Floats:
    """Blur ``(H, W)`` or ``(H, W, channels)`` with a Gaussian of positive standard deviation."""
    return cv2.GaussianBlur(values, (0, 0), spread_px).astype(np.float32, copy=False)


def to_picture(values: Floats) -> Picture:
    """Round and clip to 8 bits."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def smooth_field(side: int, detail: int, generator: np.random.Generator) -> Floats:
    """Draw a random field ``(side, side)`` of scale ``detail`` pixels, mean 0 and spread about 1."""
    cells = side // detail + 3
    coarse = generator.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)
