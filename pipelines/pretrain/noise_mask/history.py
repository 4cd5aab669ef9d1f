"""Mask distributions of a few images, recorded during training for the report."""

import torch
from torch import Tensor, nn

from pipelines.pretrain.data.views import CentreViews
from pipelines.pretrain.noise_mask.beta import BetaCells
from pipelines.pretrain.noise_mask.policy import NoisePolicy

_NUM_EPOCHS = 5
_NUM_PROBES = 4


def recorded_epochs(epochs: int) -> tuple[int, ...]:
    """List at most five evenly spaced epochs; 0 (before the first) and the last are among them."""
    return tuple(sorted({round(part * epochs / (_NUM_EPOCHS - 1)) for part in range(_NUM_EPOCHS)}))


def choose_probes(views: CentreViews) -> Tensor:
    """Choose at most four evenly spaced images of a list: ``(K, 3, H, W)`` uint8."""
    count = min(_NUM_PROBES, len(views))
    indices = (number * len(views) // count for number in range(count))
    return torch.cat([views[0, index].images for index in indices])


class MaskHistory(nn.Module):
    """Mask distributions of fixed images at fixed epochs, as buffers, so that a checkpoint holds them.

    Attributes:
        epochs: Recorded epochs.
        images: ``(K, 3, H, W)``, normalised.
        log_alpha: ``(epochs, K, grid²)``; NaN for epochs not reached yet, as in ``log_beta``.

    Args:
        images: ``(K, 3, H, W)``, normalised.
        grid: Cells along a side of a mask.
        epochs: Epochs of the run.
    """

    images: Tensor
    log_alpha: Tensor
    log_beta: Tensor

    def __init__(self, images: Tensor, grid: int, epochs: int) -> None:
        super().__init__()
        self.epochs = recorded_epochs(epochs)
        shape = (len(self.epochs), len(images), grid**2)
        self.register_buffer("images", images)
        self.register_buffer("log_alpha", torch.full(shape, torch.nan))
        self.register_buffer("log_beta", torch.full(shape, torch.nan))

    def record(self, policy: NoisePolicy, epoch: int) -> None:
        """Record the policy's current distributions if ``epoch`` is one of those to record."""
        if epoch not in self.epochs:
            return
        cells = policy.distributions(self.images)
        row = self.epochs.index(epoch)
        self.log_alpha[row] = cells.log_alpha
        self.log_beta[row] = cells.log_beta

    def recorded(self) -> dict[int, BetaCells]:
        """Return the distributions ``(K, grid²)`` recorded so far, by epoch."""
        return {
            epoch: BetaCells(log_alpha=self.log_alpha[row], log_beta=self.log_beta[row])
            for row, epoch in enumerate(self.epochs)
            if not self.log_alpha[row].isnan().any()
        }
