"""Beta distributions of the mask's cells, kept as the logarithms of their concentrations.

Symbols: ``a = log α`` and ``b = log β`` (``log_alpha``, ``log_beta``), ``m`` the sampled cells (``sample``) and
``l = log Beta(m; α, β)`` their log-densities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor
from torch.distributions import Beta

_LOWEST, _HIGHEST = -4.0, 6.0
_BORDER = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class BetaCells:
    """Beta distributions of mask cells: ``m ~ Beta(exp a, exp b)`` (3), all cells independent.

    Attributes:
        log_alpha: ``a`` ``(B, cells)``.
        log_beta: ``b`` ``(B, cells)``.
    """

    log_alpha: Tensor
    log_beta: Tensor

    def clamped(self) -> "BetaCells":
        """Clamp both logarithms to [-4, 6]; a clamped entry has no gradient.

        Below -4, samples stick to 0 and 1.
        """
        return BetaCells(
            log_alpha=self.log_alpha.clamp(_LOWEST, _HIGHEST), log_beta=self.log_beta.clamp(_LOWEST, _HIGHEST)
        )

    @torch.no_grad()
    def num_out_of_range(self) -> Tensor:
        """Count the entries that ``clamped`` changes: an integer scalar on the device."""
        entries = torch.stack([self.log_alpha, self.log_beta])
        return ((entries < _LOWEST) | (entries > _HIGHEST)).sum()

    @torch.no_grad()
    def sample(self, seeds: Sequence[int]) -> Tensor:
        """Draw the cells of each image from its own seed (3).

        So the masks do not depend on how images are split over processes. The sample carries no gradient, and torch's
        random state is not changed.

        Args:
            seeds: One per image.

        Returns:
            ``m`` ``(B, cells)`` in [0, 1].
        """
        # A Beta sample is the first part of a Dirichlet sample of two, which alone takes a generator. One of our own:
        # torch's would be read from the device and written back, for which the host waits.
        generator = torch.Generator(self.log_alpha.device)
        concentrations = torch.stack([self.log_alpha, self.log_beta], dim=-1).exp()  # (B, cells, 2)
        rows = []
        for each, seed in zip(concentrations, seeds, strict=True):
            generator.manual_seed(seed)
            rows.append(torch._sample_dirichlet(each, generator=generator)[..., 0])
        return torch.stack(rows)

    def log_density(self, sample: Tensor) -> Tensor:
        """Compute ``l`` ``(B, cells)`` of sampled cells.

        Cells are first moved 1e-6 off 0 and 1, where the density may be infinite.
        """
        densities: Tensor = self._distribution().log_prob(sample.clamp(_BORDER, 1 - _BORDER))
        return densities

    def mean(self) -> Tensor:
        """Compute the expected cells ``α / (α + β)`` ``(B, cells)``."""
        return torch.sigmoid(self.log_alpha - self.log_beta)

    def entropy(self) -> Tensor:
        """Compute the differential entropies ``(B, cells)``; the largest, 0, is that of the uniform distribution."""
        entropies: Tensor = self._distribution().entropy()
        return entropies

    def _distribution(self) -> Beta:
        # Its checks of arguments would make the host wait for the device.
        return Beta(self.log_alpha.exp(), self.log_beta.exp(), validate_args=False)


def unlearned_cells(concentration: float, images: Tensor, num_cells: int) -> BetaCells:
    """Make the fixed, symmetric Beta distributions of the control without a policy.

    Args:
        concentration: ``α`` and ``β`` of every cell.
        images: ``(B, ...)``; gives batch size, type and device.
        num_cells: Cells of a mask.
    """
    logarithm = images.new_full((len(images), num_cells), log(concentration))
    return BetaCells(log_alpha=logarithm, log_beta=logarithm)


@torch.no_grad()
def num_at_border(sample: Tensor) -> Tensor:
    """Count the cells that ``log_density`` moves off 0 and 1: an integer scalar on the device."""
    return ((sample < _BORDER) | (sample > 1 - _BORDER)).sum()
