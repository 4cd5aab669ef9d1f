"""Rewards and baselines: how much better an image did under its mask than expected. Reward is ``-cost``."""

import torch
from torch import Tensor, nn

from pipelines.pretrain.config import Reinforce

_EPSILON = 1e-8


class CostBaseline(nn.Module):
    """What an image is expected to cost.

    The moving average, and whether it has begun, are buffers: a checkpoint holds them.

    Args:
        settings: Kind of baseline and keep rate.
    """

    def __init__(self, settings: Reinforce) -> None:
        super().__init__()
        self.settings = settings
        self.average: Tensor
        self.has_begun: Tensor
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("has_begun", torch.tensor(False))

    @torch.no_grad()
    def forward(self, costs: Tensor) -> Tensor:
        """Expected costs ``(N,)`` of the ``N`` images of a step, those of all processes together."""
        match self.settings.baseline:
            case "none":
                return torch.zeros_like(costs)
            case "batch_mean":
                return costs.mean().expand_as(costs)
            case "leave_one_out":
                return leave_one_out(costs)
            case "ema":
                return self._begun(costs).expand_as(costs)

    @torch.no_grad()
    def update(self, costs: Tensor) -> None:
        """Move the average towards the mean of ``costs`` ``(N,)``, after ``forward`` has used the one of before."""
        keep = self.settings.baseline_keep_rate
        self.average.copy_(keep * self._begun(costs) + (1 - keep) * costs.mean())
        self.has_begun.fill_(True)

    def _begun(self, costs: Tensor) -> Tensor:
        # A choice on the device: asking it would make the host wait.
        return torch.where(self.has_begun, self.average, costs.mean().to(self.average.dtype))


def leave_one_out(costs: Tensor) -> Tensor:
    """For each of at least two images, the mean cost of the others ``(N,)``: independent of its own mask."""
    return (costs.sum() - costs) / (len(costs) - 1)


@torch.no_grad()
def advantages(costs: Tensor, expected: Tensor, *, normalise: bool = False) -> Tensor:
    """Reward minus baseline, ``expected - costs`` ``(N,)``.

    Args:
        costs: ``(N,)``.
        expected: ``(N,)``, from a ``CostBaseline``.
        normalise: Divide by the standard deviation over the ``N`` images, with divisor ``N``.
    """
    raw = expected - costs
    return raw / (raw.std(correction=0) + _EPSILON) if normalise else raw
