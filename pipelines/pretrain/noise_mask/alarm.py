"""Alarm that stops a failed policy; the classifier then trains under the unlearned mask."""

import math

import torch
from torch import Tensor, nn

from pipelines.pretrain.config import Alarm


class PolicyAlarm(nn.Module):
    """Stop criterion of the policy; its state is part of a checkpoint.

    Args:
        settings: Bounds of the policy's entropy; None: the default ones.
    """

    def __init__(self, settings: Alarm | None = None) -> None:
        super().__init__()
        self.settings = settings or Alarm()
        self.is_stopped = False

    def stop_reason(self, entropy: float, *, is_output_finite: bool, is_loss_finite: bool) -> str:
        """Explain why the policy must stop; empty if it need not.

        Args:
            entropy: Mean entropy of the mask's cells.
            is_output_finite: Whether all outputs of the policy network are finite.
            is_loss_finite: Whether the rewards of the masks and the policy's loss are finite.
        """
        if not (is_output_finite and math.isfinite(entropy)):
            return "its outputs are not finite"
        if not is_loss_finite:
            return "its reward or loss is not finite"
        if entropy < self.settings.lowest_entropy:
            return f"its entropy fell to {entropy:.3g}, below {self.settings.lowest_entropy:g}: masks hardly vary"
        if entropy > self.settings.highest_entropy:
            return (
                f"its entropy rose to {entropy:.3g}, above {self.settings.highest_entropy:g}: masks are uniform noise"
            )
        return ""

    def get_extra_state(self) -> Tensor:
        """Return the state for a checkpoint."""
        return torch.tensor(self.is_stopped)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the state from a checkpoint."""
        self.is_stopped = bool(state)
