"""What the networks see of a frame: z-scores and augmented pairs for the segmenter, 0 to 1 for the screen."""

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.ultrasound.config import Augmentation
from pipelines.ultrasound.data.frames import Grey
from vision_core.optional import require
from vision_core.randomness import key

Floats = NDArray[np.float32]

_WHY = "frames are augmented by its transforms"


def zscore(image: Grey) -> Floats:
    """Scale an image to mean 0 and standard deviation 1 (of n - 1); a constant image becomes zeros."""
    wide = np.asarray(image, np.float32)
    if wide.size < 2 or wide.min() == wide.max():
        return np.zeros_like(wide)
    return np.asarray((wide - wide.mean(dtype=np.float64)) / wide.std(ddof=1, dtype=np.float64), np.float32)


def segmenter_view(image: Grey) -> Tensor:
    """Prepare a frame ``(H, W)`` for the segmenter, as in validation and prediction: ``(1, H, W)``."""
    return torch.from_numpy(zscore(image))[None]


def screen_view(image: Grey, white: float, side_px: int | None = None) -> Tensor:
    """Prepare a frame ``(H, W)`` for the screen: ``(1, H, W)`` from 0 to 1, or a square of ``side_px``."""
    scaled = fitted(np.asarray(image, np.float32) / np.float32(white), (side_px, side_px) if side_px else None)
    return torch.from_numpy(np.ascontiguousarray(scaled))[None]


def fitted(image: Grey, size: tuple[int, int] | None) -> Grey:
    """Resize a frame ``(H, W)`` to ``size``: by areas where both sides shrink, else bilinear; None leaves it."""
    if size is None or image.shape == size:
        return image
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    rule = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.asarray(image, np.float32), size[::-1], interpolation=rule))


def training_view(
    image: Grey, target: Floats, settings: Augmentation, draw: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """Prepare a frame and its target ``(H, W)`` for a training step: z-score, flip, affine, noise; both ``(1, H, W)``.

    Image and target move together: the image by bilinear interpolation, filled with its lowest value, the target by the
    nearest pixel, filled with 0.

    Args:
        image: Grey values.
        target: From 0 to 1.
        settings: Probabilities and ranges.
        draw: Seed, epoch and index of the frame, from which all is drawn.
    """
    rng = np.random.default_rng(key("view", *draw))
    pair = {"image": torch.from_numpy(zscore(image))[None], "target": torch.from_numpy(target)[None]}
    # A draw is made whether or not its step is taken, so that one probability does not change the draws of another.
    flips, moves, speckles, adds, smooths = rng.random(5) < (
        settings.flip, settings.affine, settings.speckle, settings.gaussian, settings.smooth
    )  # fmt: skip
    if flips:
        pair = {name: each.flip(-1) for name, each in pair.items()}
    motion, sigma = rng.uniform(-1, 1, 5), rng.uniform(0.25, 1.5)
    if moves:
        pair = _moved(pair, motion, settings)
    pixels = pair["image"]
    if speckles or adds:
        noise = torch.from_numpy(rng.standard_normal((2, *pixels.shape), np.float32) * np.float32(settings.noise))
        pixels = pixels * (1 + noise[0]) if speckles else pixels
        pixels = pixels + noise[1] if adds else pixels
    if smooths:
        pixels = _plain(require("monai.transforms", _WHY).GaussianSmooth(sigma)(pixels))
    return pixels.contiguous(), pair["target"].contiguous()


def _moved(pair: dict[str, Tensor], motion: NDArray[np.float64], settings: Augmentation) -> dict[str, Tensor]:
    """Move both by one affine map; ``motion`` has five numbers from -1 to 1."""
    turn, shear, down, right, zoom = motion.tolist()  # MONAI takes no numbers of NumPy
    height, width = pair["image"].shape[-2:]
    # MONAI's own random transform scales both axes apart, and fills with 0: here the lowest value is 0 meanwhile.
    affine = require("monai.transforms", _WHY).Affined(
        keys=("image", "target"),
        mode=("bilinear", "nearest"),
        padding_mode="zeros",
        rotate_params=turn * math.radians(settings.degrees),
        shear_params=(0.0, shear * math.tan(math.radians(settings.degrees))),
        translate_params=(down * settings.shift * height, right * settings.shift * width),
        scale_params=(1 + zoom * settings.scale,) * 2,
    )
    lowest = pair["image"].min()
    moved = affine({"image": pair["image"] - lowest, "target": pair["target"]})
    return {"image": _plain(moved["image"]) + lowest, "target": _plain(moved["target"])}


def _plain(image: Tensor) -> Tensor:
    """Take the tensor out of MONAI's, which carries its history along."""
    return image.as_tensor() if hasattr(image, "as_tensor") else image
