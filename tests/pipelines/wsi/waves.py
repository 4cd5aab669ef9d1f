"""The numbers that the specification's checks are computed from."""

import torch
from torch import Tensor


def wave(*shape: int, a: float, b: float, c: float = 1.0) -> Tensor:
    """``c sin(a k + b)`` over the row-major index ``k``, in float64."""
    count = int(torch.tensor(shape).prod())
    return (c * torch.sin(a * torch.arange(count, dtype=torch.float64) + b)).reshape(shape)
