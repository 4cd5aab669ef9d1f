"""Rendered domain shifts of a clean image: night, fog, or a worse camera.

Every shift is a pure function of the image and a seed. ``night`` and ``fog`` are what the demo reports; ``noise``,
``blur`` and ``colour_cast`` are another family, on which schedules are found without looking at the reported ones.

The strength of night and fog was set on the strip of the source image with the source model of seed 0 alone, so that it
keeps about 60 % of its clean AP50 there; no adaptation had run at these strengths.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Shift = Callable[[Picture, int], Picture]

_GAMMA = 2.2
_DISPLAY_MAX = 255.0

_MOONLIGHT = (0.80, 0.90, 1.10)
_NIGHT_EXPOSURE = 0.15
_FULL_WELL_ELECTRONS = 2000.0
_READ_NOISE_ELECTRONS = 4.0

_AIRLIGHT = (214.0, 219.0, 224.0)
_OPTICAL_DEPTH = 0.75
_FOG_PATCH_PX = 160
_FOG_UNEVENNESS = 0.25

_NOISE_LEVELS = 26.0
_BLUR_RADIUS_PX = 2.2
_CAST_GAINS = (1.22, 0.92, 0.60)
_CAST_LIFT = (14.0, 4.0, 0.0)


def night(image: Picture, seed: int) -> Picture:
    """Render moonlight: a seventh of the light, bluish, with shot and read noise of a sensor."""
    light = (image.astype(np.float32) / _DISPLAY_MAX) ** _GAMMA * np.float32(_NIGHT_EXPOSURE)
    electrons = light * np.asarray(_MOONLIGHT, np.float32) * np.float32(_FULL_WELL_ELECTRONS)
    spread = np.sqrt(electrons + np.float32(_READ_NOISE_ELECTRONS**2))  # Poisson's variance is its mean
    noisy = electrons + spread * _standard_normal(image.shape, seed)
    display = (np.clip(noisy / np.float32(_FULL_WELL_ELECTRONS), 0, 1) ** (1 / _GAMMA)) * _DISPLAY_MAX
    return _to_picture(display)


def fog(image: Picture, seed: int) -> Picture:
    """Render haze of uneven density between scene and camera, seen from above.

    Koschmieder's law ``I = J t + A (1 - t)`` with transmission ``t = exp(-depth)``; contrast falls with ``t``.
    """
    depth = _OPTICAL_DEPTH * (1 + _FOG_UNEVENNESS * _smooth_field(image.shape[:2], seed))
    transmission = np.exp(-depth)[..., None]  # (H, W, 1)
    airlight = np.asarray(_AIRLIGHT, np.float32)
    return _to_picture(image.astype(np.float32) * transmission + airlight * (1 - transmission))


def noise(image: Picture, seed: int) -> Picture:
    """Add Gaussian noise, the same at every brightness."""
    grain = np.float32(_NOISE_LEVELS) * _standard_normal(image.shape, seed)
    return _to_picture(image.astype(np.float32) + grain)


def blur(image: Picture, seed: int) -> Picture:
    """Blur as a lens out of focus; the seed is not used."""
    del seed
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(_BLUR_RADIUS_PX)))


def colour_cast(image: Picture, seed: int) -> Picture:
    """Change the white balance towards sunset; the seed is not used."""
    del seed
    gains, lift = np.asarray(_CAST_GAINS, np.float32), np.asarray(_CAST_LIFT, np.float32)
    return _to_picture(image.astype(np.float32) * gains + lift)


REPORTED: dict[str, Shift] = {"night": night, "fog": fog}
TUNING: dict[str, Shift] = {"noise": noise, "blur": blur, "colour_cast": colour_cast}


def _standard_normal(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _smooth_field(size: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """Draw a smooth field of about mean 0 and deviation 1."""
    height, width = size
    coarse = _standard_normal((height // _FOG_PATCH_PX + 3, width // _FOG_PATCH_PX + 3), seed)
    field = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(field, dtype=np.float32)


def _to_picture(values: NDArray[np.float32]) -> Picture:
    levels: Picture = np.clip(np.rint(values), 0, _DISPLAY_MAX).astype(np.uint8)
    return levels
