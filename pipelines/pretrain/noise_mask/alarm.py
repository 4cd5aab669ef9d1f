"""When a policy has failed: it is stopped, the person is told, and the classifier goes on without it."""

import math

import torch
from torch import Tensor, nn

from pipelines.pretrain.config import Alarm


class PolicyAlarm(nn.Module):
    """Remembers whether the policy was stopped; a checkpoint holds it.

    Args:
        settings: The bounds of a policy's entropy.
    """

    def __init__(self, settings: Alarm) -> None:
        super().__init__()
        self.settings = settings
        self.is_stopped = False

    def reason(self, entropy: float, *, is_finite: bool, has_reward: bool) -> str:
        """Why a policy in this state must stop, in words; empty when it need not.

        Args:
            entropy: Mean entropy of its cells.
            is_finite: Whether all it said was finite.
            has_reward: Whether the rewards of its masks, and its loss, are finite.
        """
        if not (is_finite and math.isfinite(entropy)):
            return "it gave numbers that are not finite"
        if not has_reward:
            return "its reward or loss is not finite"
        if entropy < self.settings.lowest_entropy:
            return f"its entropy fell to {entropy:.3g}, below {self.settings.lowest_entropy:g}: masks hardly vary"
        if entropy > self.settings.highest_entropy:
            return f"its entropy rose to {entropy:.3g}, above {self.settings.highest_entropy:g}: it says nothing"
        return ""

    def get_extra_state(self) -> Tensor:
        """For a checkpoint."""
        return torch.tensor(self.is_stopped)

    def set_extra_state(self, state: Tensor) -> None:
        """From a checkpoint."""
        self.is_stopped = bool(state)
