"""Data-parallel forward pass of a learner."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vision_core.training.runtime import Runtime

Losses = dict[str, Tensor]
Forward = Callable[[Any], Losses]
TOUCH = "touch"  # name of the loss term that is zero


class _Touching(nn.Module):
    """Learner with a loss term of zero that reaches every trained parameter.

    Without it, a process with fewer losses in a step would leave the others waiting for its gradients, or mix gradients
    of different steps.
    """

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner
        self._trained: Sequence[nn.Parameter] = [p for p in learner.parameters() if p.requires_grad]

    def forward(self, batch: Any) -> Losses:  # noqa: ANN401
        """Compute the losses of a batch, if any, and the term of zero."""
        losses: Losses = {} if batch is None else self.learner(batch)
        if not self._trained:
            return losses
        touch = torch.stack([parameter.flatten()[0].float() for parameter in self._trained]).sum() * 0.0
        return {**losses, TOUCH: touch}


def shared_forward(learner: nn.Module, runtime: Runtime, *, compiled: bool) -> Forward:
    """Wrap a learner for its forward pass; several processes average their gradients.

    Buffers are not copied between processes: learners exchange what belongs into them (``Learner.exchange``).
    """
    if runtime.world_size == 1:
        return torch.compile(learner) if compiled else learner
    touching = _Touching(learner)
    if not touching._trained:
        return touching
    module = torch.compile(touching) if compiled else touching
    devices = [runtime.device] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True)
