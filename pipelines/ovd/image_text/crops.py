"""Square crops of an image for image–text models."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

CropMode = Literal["center", "squash", "pad"]
_GREY = (128, 128, 128)


def scale_boxes_about_center(boxes: Tensor, scale: float, size: tuple[int, int]) -> Tensor:
    """Scale boxes about their centres, then clip each side to the image.

    Args:
        boxes: ``(N, 4)``, ``xyxy`` in pixels; a scale of 1 only clips.
        scale: Factor of width and height.
        size: ``(height, width)`` of the image in pixels.

    Returns:
        ``(N, 4)``.
    """
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (scale / 2)
    scaled = boxes if scale == 1 else torch.cat([center - half, center + half], dim=1)
    height, width = size
    limits = scaled.new_tensor([width, height, width, height])
    return scaled.clamp(min=0).minimum(limits)


def cut_crops(image: NDArray[np.uint8], boxes: Tensor, side: int, mode: CropMode = "center") -> Tensor:
    """Cut boxes out of an RGB image and bring each to a square, bicubic.

    Args:
        image: ``(H, W, 3)`` uint8.
        boxes: ``(N, 4)``, ``xyxy`` in pixels, inside the image; edges are rounded to pixels.
        side: Side of the squares in pixels.
        mode: center: the shortest side is brought to ``side`` and the middle is cut out, so that long boxes lose their
            ends, as image–text models are fed. squash: both sides are brought to it. pad: the longest side is, the rest
            is grey.

    Returns:
        ``(N, 3, side, side)`` uint8.
    """
    picture = Image.fromarray(image)
    crops = np.empty((len(boxes), side, side, 3), np.uint8)
    for row, box in enumerate(boxes.tolist()):
        crops[row] = _square(picture, box, side, mode)
    return torch.from_numpy(crops).permute(0, 3, 1, 2)


def _square(picture: Image.Image, box: Sequence[float], side: int, mode: CropMode) -> NDArray[np.uint8]:
    left, top, right, bottom = (round(edge) for edge in box)
    crop = picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    if mode == "squash":
        return np.asarray(crop.resize((side, side), Image.Resampling.BICUBIC))
    edge = (min if mode == "center" else max)(crop.size)
    width, height = (max(1, int(side * length / edge)) for length in crop.size)
    resized = crop.resize((width, height), Image.Resampling.BICUBIC)
    # Rounded halves, as the usual chain of resizing and cutting out the middle does.
    left, top = round((width - side) / 2), round((height - side) / 2)
    if mode == "center":
        return np.asarray(resized)[top : top + side, left : left + side]
    square = Image.new("RGB", (side, side), _GREY)
    square.paste(resized, (-left, -top))
    return np.asarray(square)
