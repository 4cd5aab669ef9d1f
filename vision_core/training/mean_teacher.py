"""The mean teacher: a frozen copy of a module that follows it as a moving average.

``torch.optim.swa_utils.AveragedModel`` is not used: its first update copies the student instead of averaging, and its
state has other keys than the checkpoints and bundles of this package.
"""

import copy
from typing import Literal

import torch
from torch import nn


class MeanTeacher(nn.Module):
    """Frozen moving average of a module, always in the same mode.

    The learner decides when it is updated (``after_step`` or ``after_epoch``), the keep rate how far.
    Source: Tarvainen and Valpola, "Mean teachers are better role models", 2017.

    Args:
        student: Module to copy.
        mode: ``eval``, or ``train``, which leaves dropout on as some published code does.
    """

    def __init__(self, student: nn.Module, mode: Literal["eval", "train"] = "eval") -> None:
        super().__init__()
        self.mode = mode
        self.module = copy.deepcopy(student).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "MeanTeacher":
        """Keep the teacher's own mode, whatever ``mode`` the learner sets."""
        return super().train(self.mode == "train")

    @torch.no_grad()
    def update(self, student: nn.Module, keep_rate: float) -> None:
        """Update every entry: ``teacher = keep_rate * teacher + (1 - keep_rate) * student``.

        Integer entries are copied, not averaged. Entries that only the student has are ignored.

        Raises:
            KeyError: The student lacks an entry of the teacher.
        """
        theirs = student.state_dict(keep_vars=True)
        ours = self.module.state_dict(keep_vars=True)
        missing = [name for name in ours if name not in theirs]
        if missing:
            raise KeyError(f"The student lacks {len(missing)} entries of the teacher, first '{missing[0]}'.")
        for name, entry in ours.items():
            if entry.is_floating_point():
                entry.lerp_(theirs[name], 1 - keep_rate)
            else:
                entry.copy_(theirs[name])
