"""Detection of a collapsed teacher from its pseudo labels: too few, or of one class. No label is read."""

import copy

import torch
from torch import Tensor, nn

from vision_core.training.mean_teacher import MeanTeacher

_COLLAPSE_FACTOR = 10


def describe_collapse(first: Tensor, now: Tensor) -> str:
    """Describe the collapse since the first epoch; empty if there is none.

    Args:
        first: ``(classes,)`` pseudo labels of the first epoch, by class.
        now: ``(classes,)`` those of the last epoch, on the same images.
    """
    before, after = int(first.sum()), int(now.sum())
    if before and after * _COLLAPSE_FACTOR <= before:
        return f"pseudo labels fell from {before} in the first epoch to {after}"
    had, has = int((first > 0).sum()), int((now > 0).sum())
    if had > 1 and has == 1 and int(first.max()) < before * (1 - 1 / _COLLAPSE_FACTOR):
        return f"all {after} pseudo labels are of one class, of {had} in the first epoch"
    return ""


class CollapseGuard(nn.Module):
    """Counter of pseudo labels, with a copy of the last healthy teacher.

    Counts and copy are buffers, so that checkpoints hold them.
    """

    def __init__(self, teacher: MeanTeacher, num_classes: int) -> None:
        super().__init__()
        self.before = copy.deepcopy(teacher)
        self.first: Tensor
        self.now: Tensor
        self.healthy: Tensor
        self.register_buffer("first", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("now", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("healthy", torch.ones((), dtype=torch.bool))

    @property
    def is_healthy(self) -> bool:
        """Whether no epoch has collapsed so far."""
        return bool(self.healthy)

    def count(self, per_class: Tensor) -> None:
        """Add the pseudo labels of a step, ``(classes,)``."""
        self.now += per_class.to(self.now.dtype)

    def end_epoch(self, epoch: int) -> str:
        """Judge the last epoch; describe a collapse the first time it is seen."""
        if epoch == 1:
            self.first.copy_(self.now)
        fault = describe_collapse(self.first, self.now) if self.is_healthy else ""
        self.now.zero_()
        if fault:
            self.healthy.fill_(False)
        return fault

    def keep(self, teacher: MeanTeacher) -> None:
        """Copy the teacher's current weights."""
        self.before.load_state_dict(teacher.state_dict())
