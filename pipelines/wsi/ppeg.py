"""Positions from convolutions over the bag, laid out as a square.

Source: Shao et al., "TransMIL", NeurIPS 2021 (pyramid position encoding generator).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (7, 5, 3)


def fill_square(tokens: Tensor) -> Tensor:
    """The tokens ``(N, D)`` and, behind them, the first ones again up to the next square number."""
    side = math.isqrt(len(tokens) - 1) + 1
    return torch.cat([tokens, tokens[: side**2 - len(tokens)]]) if side**2 > len(tokens) else tokens


class Ppeg(nn.Module):
    """Adds to each token depth-wise convolutions of three widths over its neighbourhood in the square.

    Args:
        dim: Width of a token.
        least_side: Smaller squares are filled up with zeros to this side.
    """

    def __init__(self, dim: int, least_side: int = 7) -> None:
        super().__init__()
        self.least_side = least_side
        self.convolutions = nn.ModuleList(
            nn.Conv2d(dim, dim, width, padding=width // 2, groups=dim) for width in _WIDTHS
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(N, D)`` with positions."""
        square = fill_square(tokens)
        side = max(math.isqrt(len(square)), self.least_side)
        square = functional.pad(square, (0, 0, 0, side**2 - len(square)))
        image = square.unflatten(0, (side, side)).permute(2, 0, 1)[None]  # (1, D, side, side), channels last
        weight, bias = self._joined()
        convolved = functional.conv2d(image, weight, bias, padding=_WIDTHS[0] // 2, groups=len(weight))
        return tokens + convolved[0].permute(1, 2, 0).flatten(0, 1)[: len(tokens)]

    def _joined(self) -> tuple[Tensor, Tensor]:
        # Convolution is linear: the narrow kernels, framed by zeros, join the widest, and one pass does for three.
        weights = [functional.pad(each.weight, [(_WIDTHS[0] - each.kernel_size[0]) // 2] * 4) for each in self._layers]
        return torch.stack(weights).sum(dim=0), torch.stack([each.bias for each in self._layers]).sum(dim=0)
