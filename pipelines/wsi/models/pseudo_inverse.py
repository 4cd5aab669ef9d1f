"""Iterative pseudo-inverse between landmarks, kept as a product of matrices that is never multiplied out.

Source: Xiong et al., "Nyströmformer", AAAI 2021. ``P <- P q(X) / 4`` with ``X = A P`` and
``q(X) = 13 I - X (15 I - X (7 I - X))``. All ``X`` are polynomials of the first one, hence commute, so that
``X <- X q(X) / 4`` needs no ``P``: two products of matrices instead of four, and ``P`` multiplies narrow ones only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_ITERATIONS = 6


@dataclass(frozen=True, kw_only=True)
class PseudoInverse:
    """Pseudo-inverse ``P`` of ``(heads, m, m)`` matrices.

    Attributes:
        start: ``P`` before the first iteration.
        iterates: ``X`` of each iteration.
    """

    start: Tensor
    iterates: tuple[Tensor, ...]

    def times(self, columns: Tensor) -> Tensor:
        """Compute ``P columns`` for columns ``(heads, m, width)``."""
        for iterate in reversed(self.iterates):
            columns = _quarter_polynomial(iterate, columns)
        return self.start @ columns

    def after(self, rows: Tensor) -> Tensor:
        """Compute ``rows P`` for rows ``(heads, height, m)``."""
        columns = (rows @ self.start).mT
        for iterate in self.iterates:
            columns = _quarter_polynomial(iterate.mT, columns)
        return columns.mT


def pseudo_inverse(matrices: Tensor) -> PseudoInverse:
    """Approximate the inverses of row-stochastic matrices ``(heads, m, m)`` by six third-order iterations.

    The start is scaled by maxima over all heads together, so that the result of a head depends on the others.
    """
    rows, columns = (matrices.abs().sum(dim=dim).amax() for dim in (-1, -2))
    start = matrices.mT / (rows * columns)
    iterates = [matrices @ start]
    for _ in range(_ITERATIONS - 1):
        # Kept for the gradient: the iterates alone, a third of the intermediate results.
        iterates.append(checkpoint(_next, iterates[-1], use_reentrant=False, preserve_rng_state=False))
    return PseudoInverse(start=start, iterates=tuple(iterates))


def _next(iterate: Tensor) -> Tensor:
    """Compute ``X q(X) / 4``."""
    square = iterate @ iterate
    cubic = (7 / 4 * iterate).sub_(1 / 4 * square)
    return (13 / 4 * iterate).sub_(15 / 4 * square).baddbmm_(cubic, square)


def _quarter_polynomial(iterate: Tensor, columns: Tensor) -> Tensor:
    """Compute ``q(X) columns / 4``."""
    inner = torch.baddbmm(columns, iterate, columns, beta=7, alpha=-1)
    inner = torch.baddbmm(columns, iterate, inner, beta=15, alpha=-1)
    return torch.baddbmm(columns, iterate, inner, beta=13 / 4, alpha=-1 / 4)
