"""Gradient consistency of WSCo: both views should move the mapping network in the same direction.

Source: arXiv 2410.05557 and the behaviour of the code released with its third version.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_SCALE = 1e4  # of the gradients, which would else be small


def grad_consistency(
    weak: Tensor, strong: Tensor, parameters: Sequence[Tensor], *, masks_zero_rows: bool = False
) -> Tensor:
    """Compute ``mean_p (1 - cos(d weak / dp, d strong / dp))`` over parameter tensors.

    The cosine is that along the second dimension, then averaged, for tensors of two dimensions or more; that of the
    whole for vectors. The gradient of ``weak`` is constant, that of ``strong`` is differentiated again.

    Args:
        weak: Loss of the weak view, a scalar.
        strong: Loss of the strong view, a scalar.
        parameters: Tensors that both depend on.
        masks_zero_rows: Leave out rows where either gradient is zero, as behind units that never fire; their cosine
            is 0, so that the loss of identical views is not 0. False: as released.
    """
    constant = torch.autograd.grad(weak * _SCALE, parameters, retain_graph=True)
    moving = torch.autograd.grad(strong * _SCALE, parameters, create_graph=True)
    terms = [
        1 - _cosine(own.detach().float(), other.float(), masks_zero_rows)
        for own, other in zip(constant, moving, strict=True)
    ]
    return torch.stack(terms).mean()


def _cosine(first: Tensor, second: Tensor, masks_zero_rows: bool) -> Tensor:
    if first.ndim < 2:
        return torch.cosine_similarity(first, second, dim=0)
    cosines = torch.cosine_similarity(first, second, dim=1)
    if not masks_zero_rows:
        return cosines.mean()
    counts = (first.abs().amax(dim=1) > 0) & (second.detach().abs().amax(dim=1) > 0)
    # Without any row left there is nothing to align.
    return torch.where(counts.any(), (cosines * counts).sum() / counts.sum().clamp(min=1), cosines.new_ones(()))
