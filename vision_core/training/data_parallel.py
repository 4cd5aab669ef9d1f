"""The forward pass of a learner, shared by several processes where there are several."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vision_core.training.runtime import Runtime

Losses = dict[str, Tensor]
Forward = Callable[[Any], Losses]
TOUCH = "touch"  # the name of the term of zero


class _Touching(nn.Module):
    """A learner whose losses always reach every trained parameter, by a term of zero.

    Without it a process that has no loss in a step, or not all of them, would leave the others waiting for its
    gradients, or mix gradients of different steps.
    """

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner
        self._trained: Sequence[nn.Parameter] = [p for p in learner.parameters() if p.requires_grad]

    def forward(self, batch: Any) -> Losses:  # noqa: ANN401
        """The losses of a batch, none of no batch, and the term of zero."""
        losses: Losses = {} if batch is None else self.learner(batch)
        if not self._trained:
            return losses
        touch = torch.stack([parameter.flatten()[0].float() for parameter in self._trained]).sum() * 0.0
        return {**losses, TOUCH: touch}


def shared_forward(learner: nn.Module, runtime: Runtime, *, compiled: bool) -> Forward:
    """What a step calls: the learner itself, or, among several processes, one that averages gradients with them.

    Buffers are not copied between processes: those of a learner hold what all processes have pushed into them.
    """
    if runtime.world_size == 1:
        return torch.compile(learner) if compiled else learner
    touching = _Touching(learner)
    if not touching._trained:
        return touching
    module = torch.compile(touching) if compiled else touching
    devices = [runtime.device] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True)
