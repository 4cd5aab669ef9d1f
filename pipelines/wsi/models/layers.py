"""Dropout for wide layers on a CPU, activations, and linear layers in full precision.

On a CPU the dropout draws two random bytes per number and keeps one byte per number for the gradient. Torch's draws a
float for each number, which takes a third of the time of the linear layer before it, and keeps the floats.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vision_core.training.runtime import full_float32

_LEVELS = 2**16


class Dropout(nn.Module):
    """Dropout whose rate is exact to one in 65,536.

    Args:
        rate: Share of the numbers set to zero in training, 0 to 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop and scale numbers in training, in place where no gradient is recorded; else return ``inputs``."""
        if not self.training or not self.rate:
            return inputs
        if inputs.device.type != "cpu":
            return functional.dropout(inputs, self.rate)
        keep = keep_mask(inputs.shape, self.rate, inputs.device)
        dropped = inputs * keep if torch.is_grad_enabled() else inputs.mul_(keep)
        return dropped.mul_(keep_scale(self.rate))


def keep_mask(shape: tuple[int, ...], rate: float, device: torch.device) -> Tensor:
    """Draw which numbers stay, bool of ``shape``, from the global generator."""
    if rate == 1:
        return torch.zeros(shape, dtype=torch.bool, device=device)
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    draws = words.view(torch.int16)[:count].view(shape)
    return draws >= min(round(rate * _LEVELS), _LEVELS - 1) - _LEVELS // 2


def keep_scale(rate: float) -> float:
    """Compute the factor for the numbers that stay, which preserves the mean."""
    return 1 / (1 - rate) if rate < 1 else 0.0


def activation(name: str) -> nn.Module:
    """Build the activation ``relu``, ``gelu`` or ``tanh``.

    ReLU works in place: its input is always the output of a linear layer, which does not need it for its gradient.
    """
    if name == "relu":
        return nn.ReLU(inplace=True)
    return nn.GELU() if name == "gelu" else nn.Tanh()


def full_precision(tensor: Tensor) -> Tensor:
    """Convert to float32 unless the precision is higher."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def is_sparing(tensor: Tensor) -> bool:
    """Tell whether to compute in stretches that fit a processor's cache.

    Not where a gradient or graph needs the whole, and not on a GPU, which would be started anew for each stretch.
    """
    return tensor.device.type == "cpu" and not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def precise_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer in full precision: scores in bfloat16 would tie by the hundred."""
    with full_float32(inputs.device):
        fine_bias = None if bias is None else full_precision(bias)
        return functional.linear(full_precision(inputs), full_precision(weight), fine_bias)
