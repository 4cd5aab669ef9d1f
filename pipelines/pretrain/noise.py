"""Where masks come from: the policy network with its running bases, or the fixed Beta of the control."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.pretrain.bases import RunningBases
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.everywhere import mean_row
from pipelines.pretrain.noise_mask.beta import BetaCells, num_at_border, unlearned_cells
from pipelines.pretrain.noise_mask.mask import NoiseMask
from pipelines.pretrain.noise_mask.policy import PolicyNetwork


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """The masks of a batch.

    Attributes:
        cells: The distributions they were drawn from ``(B, grid²)``.
        sample: The sampled cells ``(B, grid²)``, without a gradient.
        masks: ``(B, 1, H, W)``.
        is_finite: Whether the policy gave finite numbers, a boolean scalar on the device.
        num_moved: Entries that were moved off an extreme, an integer scalar on the device.
    """

    cells: BetaCells
    sample: Tensor
    masks: Tensor
    is_finite: Tensor
    num_moved: Tensor

    @torch.no_grad()
    def entropy(self) -> Tensor:
        """Mean entropy of the cells of all images, a scalar."""
        return self.cells.entropy().mean()


class NoisePolicy(nn.Module):
    """The policy network and its running bases.

    Args:
        config: Grid, what the network sees, shares of the bases.
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.network = PolicyNetwork(config.mask.grid, config.policy_input)
        self.bases = RunningBases(config.mask.grid**2, config.bases)

    def draw(self, images: Tensor, seeds: Sequence[int], mask: NoiseMask) -> Drawn:
        """Masks for a training batch, each from its own seed; the bases then follow the mean over all processes.

        Numbers that are not finite become 0 and are told of by ``is_finite``: the classifier sees none of them.
        """
        heads, is_finite = self._heads(images)
        unbounded = self.bases(heads)
        self.bases.update(BetaCells(log_alpha=mean_row(heads.log_alpha), log_beta=mean_row(heads.log_beta)))
        cells = unbounded.bounded()
        sample = cells.sample(seeds)
        return Drawn(
            cells=cells,
            sample=sample,
            masks=mask(sample),
            is_finite=is_finite,
            num_moved=unbounded.num_beyond() + num_at_border(sample),
        )

    @torch.no_grad()
    def distributions(self, images: Tensor) -> BetaCells:
        """The distributions for ``images`` as the policy stands, in inference: nothing is moved."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        cells: BetaCells = self.bases(self._heads(images)[0])
        for module, is_training in modes.items():  # one by one: norms may be frozen
            module.training = is_training
        return cells.bounded()

    def _heads(self, images: Tensor) -> tuple[BetaCells, Tensor]:
        """What the network says, in the precision of the bases even where it computes in half, and if it is finite."""
        said: BetaCells = self.network(images)
        dtype = self.bases.log_alpha.dtype
        return _finite(BetaCells(log_alpha=said.log_alpha.to(dtype), log_beta=said.log_beta.to(dtype)))


def draw_unlearned(images: Tensor, seeds: Sequence[int], mask: NoiseMask, concentration: float) -> Drawn:
    """Masks of the fixed Beta, the same in every cell of every image."""
    cells = unlearned_cells(concentration, images, mask.grid**2)
    sample = cells.sample(seeds)
    return Drawn(
        cells=cells,
        sample=sample,
        masks=mask(sample),
        is_finite=images.new_tensor(True, dtype=torch.bool),
        num_moved=num_at_border(sample),
    )


def _finite(heads: BetaCells) -> tuple[BetaCells, Tensor]:
    """The same with 0 in place of NaN and infinity, without a gradient there, and whether nothing was replaced."""
    is_alpha, is_beta = heads.log_alpha.isfinite(), heads.log_beta.isfinite()
    replaced = BetaCells(
        log_alpha=torch.where(is_alpha, heads.log_alpha, 0.0), log_beta=torch.where(is_beta, heads.log_beta, 0.0)
    )
    return replaced, is_alpha.all() & is_beta.all()
