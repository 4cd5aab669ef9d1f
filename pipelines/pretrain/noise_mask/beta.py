"""Beta distributions of the mask's cells, kept as the logarithms of their concentrations.

Symbols: ``a = log α`` and ``b = log β`` the logarithms of the concentrations, ``m`` the sampled cells,
``l = log Beta(m; α, β)`` their log-densities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor
from torch.distributions import Beta

from vision_core.randomness import seed_torch

_LOWEST, _HIGHEST = -4.0, 6.0
_BORDER = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class BetaCells:
    """One Beta distribution per image and cell: ``log_alpha`` and ``log_beta``, both ``(B, cells)``."""

    log_alpha: Tensor
    log_beta: Tensor

    def bounded(self) -> "BetaCells":
        """The same within [-4, 6]: below, samples stick to 0 and 1; an entry outside has no gradient."""
        return BetaCells(
            log_alpha=self.log_alpha.clamp(_LOWEST, _HIGHEST), log_beta=self.log_beta.clamp(_LOWEST, _HIGHEST)
        )

    @torch.no_grad()
    def num_beyond(self) -> Tensor:
        """How many entries ``bounded`` would move, as an integer scalar that stays on the device."""
        entries = torch.stack([self.log_alpha, self.log_beta])
        return ((entries < _LOWEST) | (entries > _HIGHEST)).sum()

    @torch.no_grad()
    def sample(self, seeds: Sequence[int]) -> Tensor:
        """Draw every image's cells from a seed of its own, so that a split over processes changes nothing.

        The sample carries no gradient, and torch's random state is left as it was.

        Args:
            seeds: One per image.

        Returns:
            ``(B, cells)`` in [0, 1].
        """
        device = self.log_alpha.device
        rows = []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for alpha, beta, seed in zip(self.log_alpha.exp(), self.log_beta.exp(), seeds, strict=True):
                seed_torch(seed)
                rows.append(Beta(alpha, beta, validate_args=False).sample())
        return torch.stack(rows)

    def log_density(self, cells: Tensor) -> Tensor:
        """``l`` ``(B, cells)`` of sampled ``cells``, which are moved 1e-6 off 0 and 1, where it may be infinite."""
        densities: Tensor = self._distribution().log_prob(cells.clamp(_BORDER, 1 - _BORDER))
        return densities

    def mean(self) -> Tensor:
        """Expected cells ``(B, cells)``: ``α / (α + β)``."""
        return torch.sigmoid(self.log_alpha - self.log_beta)

    def entropy(self) -> Tensor:
        """Differential entropies ``(B, cells)``, at most 0, which is that of the flat distribution."""
        entropies: Tensor = self._distribution().entropy()
        return entropies

    def _distribution(self) -> Beta:
        # Its checks of arguments would make the host wait for the device.
        return Beta(self.log_alpha.exp(), self.log_beta.exp(), validate_args=False)


def unlearned_cells(concentration: float, like: Tensor, cells: int) -> BetaCells:
    """The control without a policy: the same symmetric Beta in all ``cells`` of every image.

    Args:
        concentration: ``α`` and ``β``.
        like: The batch ``(B, ...)``, for its length, type and device.
        cells: Cells of a mask.
    """
    logarithm = like.new_full((len(like), cells), log(concentration))
    return BetaCells(log_alpha=logarithm, log_beta=logarithm)


@torch.no_grad()
def num_at_border(cells: Tensor) -> Tensor:
    """How many sampled cells ``log_density`` moves off 0 and 1, as an integer scalar that stays on the device."""
    return ((cells < _BORDER) | (cells > 1 - _BORDER)).sum()
