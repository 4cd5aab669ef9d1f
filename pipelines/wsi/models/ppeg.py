"""Pyramid position encoding generator: convolutions over the tiles of a bag, arranged as a square.

Source: Shao et al., "TransMIL", NeurIPS 2021.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.wsi.models.layers import is_sparing

_WIDEST = 7
_CHANNELS = 64


def fill_square(tokens: Tensor) -> Tensor:
    """Append the first tokens of ``(N, D)`` again up to the next square number."""
    missing = _side(len(tokens)) ** 2 - len(tokens)
    return torch.cat([tokens, tokens[:missing]]) if missing else tokens


class Ppeg(nn.Module):
    """Position encoding by depth-wise convolutions of three widths over the square.

    Args:
        dim: Width of a token.
        least_side: Smaller squares are padded with zeros to this side.
    """

    def __init__(self, dim: int, least_side: int = _WIDEST) -> None:
        super().__init__()
        self.least_side = least_side
        self.wide = _depthwise(dim, _WIDEST)
        self.middle = _depthwise(dim, 5)
        self.narrow = _depthwise(dim, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """Add to each token ``(N, D)`` the convolutions over its neighbourhood."""
        square = fill_square(tokens)
        side = max(_side(len(tokens)), self.least_side)
        if side**2 > len(square):
            square = functional.pad(square, (0, 0, 0, side**2 - len(square)))
        if not is_sparing(tokens):
            return _convolve(square, side, *self._joined())[: len(tokens)].add_(tokens)
        # Some channels at a time: intermediate results are then a fraction as large.
        placed = torch.empty_like(tokens)
        for first in range(0, tokens.shape[1], _CHANNELS):
            some = slice(first, first + _CHANNELS)
            weight, bias = (each[some] for each in self._joined())
            placed[:, some] = _convolve(square[:, some], side, weight, bias)[: len(tokens)].add_(tokens[:, some])
        return placed

    def _joined(self) -> tuple[Tensor, Tensor]:
        # Convolution is linear: the narrow kernels, padded with zeros, are added to the widest; one pass instead of 3.
        layers = (self.wide, self.middle, self.narrow)
        weights = [functional.pad(each.weight, [(_WIDEST - each.kernel_size[0]) // 2] * 4) for each in layers]
        # Added one by one: of a stack the three gradients would be one tensor, and accumulation would add to it thrice.
        first, second, third = (each.bias for each in layers)
        assert first is not None and second is not None and third is not None
        return torch.stack(weights).sum(dim=0), first + second + third


def _convolve(square: Tensor, side: int, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve channels ``(side * side, C)``, each by its own kernel."""
    image = square.unflatten(0, (side, side)).permute(2, 0, 1)[None]  # (1, C, side, side), channels last
    convolved = functional.conv2d(image, weight, bias, padding=_WIDEST // 2, groups=len(weight))
    return convolved.squeeze(0).permute(1, 2, 0).flatten(0, 1)


def _depthwise(dim: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(dim, dim, width, padding=width // 2, groups=dim)


def _side(count: int) -> int:
    return math.isqrt(count - 1) + 1
