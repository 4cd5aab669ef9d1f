"""Haematoxylin and eosin: stain amounts, and simulation of other laboratories and scanners.

Optical density is linear in the amount of each stain (Beer and Lambert). The colours of the stains are those of Ruifrok
and Johnston, "Quantification of histochemical staining by color deconvolution", 2001.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.wsi.demo.pictures import Floats, Picture, blurred, to_picture

_STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))  # haematoxylin, eosin, neither
_LEVELS = 256.0
_DENSITIES = -np.log((np.arange(256, dtype=np.float32) + 1) / _LEVELS)  # of each grey level

# Standard deviations and ranges of what differs between laboratories and scanners.
_STAIN_COLOUR = 0.03
_STAIN_AMOUNT = (0.12, 0.12, 0.0)
_BALANCE = 0.01
_GAMMA = 0.06
_BLUR_PX = (0.3, 0.8)
_JPEG_QUALITIES = (70, 89)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Stain and scanner parameters.

    Attributes:
        stains: ``(3, 3)`` colours of haematoxylin, eosin and the residual, rows of unit length.
        amounts: ``(3,)`` factors on the amount of each.
        balance: ``(3,)`` factors on red, green and blue light.
        gamma: Exponent on the light.
        blur_px: Standard deviation of the lens' blur, above 0.
        jpeg_quality: Of the file.
    """

    stains: NDArray[np.float64]
    amounts: NDArray[np.float64]
    balance: NDArray[np.float64]
    gamma: float
    blur_px: float
    jpeg_quality: int


def stain_colours() -> NDArray[np.float64]:
    """Return the colours of haematoxylin, eosin and the residual ``(3, 3)``, rows of unit length."""
    return _unit_rows(np.array(_STAINS))


def optical_density(picture: Picture) -> Floats:
    """Compute optical density ``(..., 3)`` of red, green and blue; 0 at full transmission."""
    return np.asarray(_DENSITIES[picture])


def haematoxylin(picture: Picture) -> Floats:
    """Compute haematoxylin ``(H, W)``, about 1 in a dark nucleus; noise may make it negative."""
    weights = np.linalg.inv(stain_colours())[:, 0].astype(np.float32)
    return np.asarray(optical_density(picture) @ weights)


def draw_look(generator: np.random.Generator) -> Look:
    """Draw stain and scanner parameters."""
    return Look(
        stains=_unit_rows(stain_colours() + generator.normal(0, _STAIN_COLOUR, (3, 3))),
        amounts=np.exp(generator.normal(0, _STAIN_AMOUNT)),
        balance=np.exp(generator.normal(0, _BALANCE, 3)),
        gamma=float(np.exp(generator.normal(0, _GAMMA))),
        blur_px=float(generator.uniform(*_BLUR_PX)),
        jpeg_quality=int(generator.integers(*_JPEG_QUALITIES)),
    )


def restain(picture: Picture, look: Look) -> Picture:
    """Render tissue with the stain and scanner of ``look``."""
    change = np.linalg.inv(stain_colours()) @ np.diag(look.amounts) @ look.stains
    density = optical_density(picture) @ (look.gamma * change).astype(np.float32)
    light = np.exp(-density) * (_LEVELS * look.balance).astype(np.float32)
    return to_picture(blurred(light, look.blur_px) - 1)


def _unit_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
