"""The running bases: what the concentrations are made of besides the policy network's outputs.

Symbols: ``A`` and ``Bt`` the bases, ``h`` the heads' outputs, ``δ`` the bases' share.
"""

import torch
from torch import Tensor, nn

from pipelines.pretrain.config import Bases
from pipelines.pretrain.noise_mask.beta import BetaCells


class RunningBases(nn.Module):
    """Moving averages of the heads' outputs, as buffers: a checkpoint holds them.

    They start uniform in [0, 1), from torch's random state.

    Args:
        cells: Cells of a mask.
        settings: Share and keep rate.
    """

    def __init__(self, cells: int, settings: Bases) -> None:
        super().__init__()
        self.settings = settings
        self.log_alpha: Tensor
        self.log_beta: Tensor
        self.register_buffer("log_alpha", torch.rand(1, cells))
        self.register_buffer("log_beta", torch.rand(1, cells))

    def forward(self, heads: BetaCells) -> BetaCells:
        """``δ A + (1 - δ) h``: concentrations of each image, with a gradient through ``heads`` alone."""
        share = self.settings.share
        return BetaCells(
            log_alpha=share * self.log_alpha + (1 - share) * heads.log_alpha,
            log_beta=share * self.log_beta + (1 - share) * heads.log_beta,
        )

    def current(self) -> BetaCells:
        """The bases themselves, as one mask's distribution for every image: ``(1, cells)``."""
        return BetaCells(log_alpha=self.log_alpha, log_beta=self.log_beta)

    @torch.no_grad()
    def update(self, heads: BetaCells) -> None:
        """Move towards the mean over the rows of ``heads``, after ``forward`` has used the bases of before.

        On several processes the rows are those of all, or one mean per process.
        """
        step = 1 - self.settings.keep_rate
        self.log_alpha.lerp_(heads.log_alpha.mean(dim=0, keepdim=True).to(self.log_alpha.dtype), step)
        self.log_beta.lerp_(heads.log_beta.mean(dim=0, keepdim=True).to(self.log_beta.dtype), step)
