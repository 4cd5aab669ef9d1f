"""What the policy would hide in a few images, kept through training for the report."""

import torch
from torch import Tensor, nn

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.views import CentreViews
from pipelines.pretrain.noise_mask.beta import BetaCells
from pipelines.pretrain.noise_mask.policy import NoisePolicy

_MOMENTS = 5
_PROBES = 4


def kept_epochs(epochs: int) -> tuple[int, ...]:
    """Before the first epoch, after the last, and evenly between: at most five."""
    return tuple(sorted({round(part * epochs / (_MOMENTS - 1)) for part in range(_MOMENTS)}))


def choose_probes(views: CentreViews) -> Tensor:
    """A few images of a list, evenly spread ``(K, 3, H, W)`` uint8."""
    count = min(_PROBES, len(views))
    places = (number * len(views) // count for number in range(count))
    return torch.cat([views[0, place].images for place in places])


class MaskHistory(nn.Module):
    """Distributions of the masks of a few images at fixed epochs, as buffers: a resumed run has them all.

    Attributes:
        epochs: When.
        images: ``(K, 3, H, W)``, normalised.
        log_alpha: ``(moments, K, grid²)``; NaN where not reached yet, as for ``log_beta``.

    Args:
        config: Epochs and grid.
        images: ``(K, 3, H, W)``, normalised.
    """

    images: Tensor
    log_alpha: Tensor
    log_beta: Tensor

    def __init__(self, config: PretrainConfig, images: Tensor) -> None:
        super().__init__()
        self.epochs = kept_epochs(config.train.epochs)
        shape = (len(self.epochs), len(images), config.mask.grid**2)
        self.register_buffer("images", images)
        self.register_buffer("log_alpha", torch.full(shape, torch.nan))
        self.register_buffer("log_beta", torch.full(shape, torch.nan))

    def record(self, noise: NoisePolicy, epoch: int) -> None:
        """Keep what the policy says now, if this is one of the epochs."""
        if epoch not in self.epochs:
            return
        cells = noise.distributions(self.images)
        moment = self.epochs.index(epoch)
        self.log_alpha[moment] = cells.log_alpha
        self.log_beta[moment] = cells.log_beta

    def reached(self) -> dict[int, BetaCells]:
        """The distributions ``(K, grid²)`` by epoch, of those that the run has reached."""
        return {
            epoch: BetaCells(log_alpha=self.log_alpha[moment], log_beta=self.log_beta[moment])
            for moment, epoch in enumerate(self.epochs)
            if not self.log_alpha[moment].isnan().any()
        }
