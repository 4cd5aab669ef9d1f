"""How pixels become what the networks see."""

import torch
from torch import Tensor

MEAN, STD = 0.3162, 0.3213


def normalise(pixels: Tensor) -> Tensor:
    """``(x - mean) / std`` of pixels scaled to [0, 1] by the largest value of their type; one channel becomes three.

    Args:
        pixels: ``(..., 1 or 3, H, W)`` uint8 or uint16.

    Returns:
        ``(..., 3, H, W)`` float32.
    """
    scaled = pixels.to(torch.float32) / torch.iinfo(pixels.dtype).max
    shape = (*scaled.shape[:-3], 3, *scaled.shape[-2:])
    return ((scaled - MEAN) / STD).expand(shape)
