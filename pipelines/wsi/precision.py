"""What stays in float32 when the rest of a network runs in half precision: scores, inverses, losses."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional


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
