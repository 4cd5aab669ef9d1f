"""Iterative pseudo-inverse between landmarks, whose last iteration is never multiplied out.

Source: Xiong et al., "Nyströmformer", AAAI 2021. ``P <- P q(X) / 4`` with ``X = A P`` and
``q(X) = 13 I - X (15 I - X (7 I - X))``. As published, each iteration multiplies ``A`` with the ``P`` before it: that
corrects the rounding of the iterations before, where a recurrence of ``X`` alone, which needs half the products, would
lose a digit. The last iteration multiplies narrow columns or rows only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_ITERATIONS = 6


@dataclass(frozen=True, kw_only=True)
class PseudoInverse:
    """Pseudo-inverse ``P q(X) / 4`` of ``(heads, m, m)`` matrices.

    Attributes:
        before: ``P`` before the last iteration.
        iterate: ``X`` of the last iteration.
    """

    before: Tensor
    iterate: Tensor

    def times(self, columns: Tensor) -> Tensor:
        """Multiply by columns ``(heads, m, width)`` from the right."""
        return self.before @ _quarter_polynomial(self.iterate, columns)

    def after(self, rows: Tensor) -> Tensor:
        """Multiply by rows ``(heads, height, m)`` from the left."""
        return _quarter_polynomial(self.iterate.mT, (rows @ self.before).mT).mT


def pseudo_inverse(matrices: Tensor) -> PseudoInverse:
    """Approximate the inverses of row-stochastic matrices ``(heads, m, m)`` by six third-order iterations.

    The start is scaled by maxima over all heads together, so that the result of a head depends on the others.
    """
    rows, columns = (matrices.abs().sum(dim=dim).amax() for dim in (-1, -2))
    inverse = matrices.mT / (rows * columns)
    iterate = matrices @ inverse
    for _ in range(_ITERATIONS - 1):
        # Kept for the gradient: P and X of each iteration, half the intermediate results.
        inverse = checkpoint(_next, inverse, iterate, use_reentrant=False, preserve_rng_state=False)
        iterate = matrices @ inverse
    return PseudoInverse(before=inverse, iterate=iterate)


def _next(inverse: Tensor, iterate: Tensor) -> Tensor:
    """Compute ``P q(X) / 4``."""
    inner = torch.baddbmm(iterate, iterate, iterate, beta=7, alpha=-1)
    inner = torch.baddbmm(iterate, iterate, inner, beta=15, alpha=-1)  # X (15 I - X (7 I - X))
    return torch.baddbmm(inverse, inverse, inner, beta=13 / 4, alpha=-1 / 4)


def _quarter_polynomial(iterate: Tensor, columns: Tensor) -> Tensor:
    """Compute ``q(X) columns / 4``."""
    inner = torch.baddbmm(columns, iterate, columns, beta=7, alpha=-1)
    inner = torch.baddbmm(columns, iterate, inner, beta=15, alpha=-1)
    return torch.baddbmm(columns, iterate, inner, beta=13 / 4, alpha=-1 / 4)
