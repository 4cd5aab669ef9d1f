"""Preprocessing of images for the networks: centre crop and normalisation."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipelines.pretrain.data_settings import PretrainData

MEAN, STD = 0.3162, 0.3213
_LONGEST_SIDES = 16  # longer side before resizing, in shorter sides


def normalise(pixels: Tensor) -> Tensor:
    """Normalise pixels: ``(x - mean) / std`` of x in [0, 1].

    Pixels are scaled by the largest value of their type; one channel becomes three.

    Args:
        pixels: ``(..., 1 or 3, H, W)`` uint8 or uint16.

    Returns:
        ``(..., 3, H, W)`` float32.
    """
    scaled = pixels.to(torch.float32) / torch.iinfo(pixels.dtype).max
    shape = (*scaled.shape[:-3], 3, *scaled.shape[-2:])
    return ((scaled - MEAN) / STD).expand(shape)


def centre_view(image: NDArray[np.uint8], resize_px: int, crop_px: int) -> NDArray[np.uint8]:
    """Resize an image (bilinear, antialiased) and cut out its centre.

    Args:
        image: ``(H, W, 3)``.
        resize_px: Shorter side after resizing; the longer one is rounded down.
        crop_px: Side of the centre square, at most ``resize_px``.

    Returns:
        ``(crop_px, crop_px, 3)`` uint8.
    """
    shorter = min(image.shape[:2])
    longest = _LONGEST_SIDES * shorter  # a strip of 1000 x 1 pixels would become gigabytes; only its middle is used
    top, left = (max(0, (edge - longest) // 2) for edge in image.shape[:2])
    image = image[top : top + longest, left : left + longest]
    height, width = image.shape[:2]
    height, width = (resize_px if edge == shorter else int(resize_px * edge / shorter) for edge in (height, width))
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    left, top = (round((edge - crop_px) / 2) for edge in (width, height))
    return np.array(picture.crop((left, top, left + crop_px, top + crop_px)))


def described(data: PretrainData) -> dict[str, object]:
    """Describe the preprocessing of all kinds of images for a bundle's card."""
    return {
        "channels": 3,
        "channel_order": "rgb",
        "grey": "repeated to three channels",
        "alpha": "laid over white",
        "sixteen_bit": "scaled by the largest value of the bits in use (8, 10, 12, 14 or 16) and rounded to 8 bits",
        "dicom": "modality values, then the file's display table or first window; MONOCHROME1 inverted; padding black",
        "resize_px": data.resize_px,
        "image_px": data.image_px,
        "interpolation": "bilinear, antialiased (Pillow)",
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
    }
