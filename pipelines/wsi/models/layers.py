"""Dropout for wide layers on a CPU: two random bytes a number, and one byte a number until the gradient has passed.

Torch draws a float for each number, which takes a third of the time of the linear layer before it, and keeps them.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 2**16


class Dropout(nn.Module):
    """Sets a share of the numbers to zero in training, to a precision of one in 65,536, and scales up the others.

    Args:
        rate: The share, 0 to 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, inputs: Tensor) -> Tensor:
        """Of the shape of ``inputs``; in evaluation ``inputs`` themselves, and without a gradient in their place."""
        if not self.training or not self.rate:
            return inputs
        keep = keep_mask(inputs.shape, self.rate, inputs.device)
        dropped = inputs * keep if torch.is_grad_enabled() else inputs.mul_(keep)
        return dropped.mul_(keep_scale(self.rate))


def keep_mask(shape: tuple[int, ...], rate: float, device: torch.device) -> Tensor:
    """Which numbers stay: bool of ``shape``, drawn from the global generator."""
    if rate == 1:
        return torch.zeros(shape, dtype=torch.bool, device=device)
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    draws = words.view(torch.int16)[:count].view(shape)
    return draws >= min(round(rate * _LEVELS), _LEVELS - 1) - _LEVELS // 2


def keep_scale(rate: float) -> float:
    """What those that stay are multiplied by, so that the mean remains."""
    return 1 / (1 - rate) if rate < 1 else 0.0


def activation(name: str) -> nn.Module:
    """The activation ``relu``, ``gelu`` or ``tanh``.

    ReLU works in place: here its input is always fresh from a linear layer, which does not need it again.
    """
    if name == "relu":
        return nn.ReLU(inplace=True)
    return nn.GELU() if name == "gelu" else nn.Tanh()


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is where it is finer."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def outside_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A stretch that autocast leaves alone; nothing at all where it is off, so that an exported graph stays clean."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def precise_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer in full precision: scores in bfloat16 would tie by the hundred."""
    with outside_autocast(inputs.device):
        fine_bias = None if bias is None else full_precision(bias)
        return functional.linear(full_precision(inputs), full_precision(weight), fine_bias)
