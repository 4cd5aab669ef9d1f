"""Outlines over a frame, as a layer of the page that is sharp at every zoom."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.frames import Grey
from vision_core.images.drawing import ORANGE, SKY_BLUE, Colour

_TOLERANCE = 1 / 400  # of the longest side: finer than a screen shows
_LEAST_POINTS = 3


def outlines_layer(kept: NDArray[np.bool_] | None, removed: NDArray[np.bool_] | None, size: tuple[int, int]) -> str:
    """Write the outline of a mask ``(H, W)``, filled, and dashed that of one which the gate removes; None: neither."""
    height, width = size
    drawn = "" if kept is None else _path(kept, ORANGE, fill=0.22)
    drawn += "" if removed is None else _path(removed, SKY_BLUE, dashes="7 5")
    return f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'


def as_picture(image: Grey, ends: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Make the picture ``(H, W, 3)`` of a frame, of 8 or 16 bits; ``ends`` are the values of black and white."""
    black, white = ends or (0, 65535 if image.dtype == np.uint16 else 255)
    grey = ((np.asarray(image, np.float32) - black) * (255 / max(white - black, 1))).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _path(mask: NDArray[np.bool_], colour: Colour, fill: float = 0.0, dashes: str = "") -> str:
    # Along the edges of the pixels, not through their middles: OpenCV's contours leave out half a pixel all around.
    enlarged = np.pad(mask, 1).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    tolerance = 2 * _TOLERANCE * max(mask.shape)
    smooth = [cv2.approxPolyDP(each, tolerance, closed=True)[:, 0] for each in contours]
    points = [(each.astype(np.float64) + 0.5) / 2 - 1 for each in smooth if len(each) >= _LEAST_POINTS]
    if not points:
        return ""
    outline = " ".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in each) + "Z" for each in points)
    shape = f'<path d="{outline}" vector-effect="non-scaling-stroke"'
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'{shape} fill="rgb{colour}" fill-opacity="{fill:g}" stroke="#000" stroke-opacity=".6" stroke-width="4.5"/>'
        f'{shape} fill="none" stroke="rgb{colour}" stroke-width="2.5"{dashed}/>'
    )
