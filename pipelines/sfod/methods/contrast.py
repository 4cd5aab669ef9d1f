"""Contrast losses of WSCoL, between categories and between instances, and its care for hard positives.

Source: arXiv 2410.05557 and the behaviour of the code released with its third version. Symbols: ``v_i`` normalised
rows; ``s_ij = v_i . v_j / T``; ``l_ij = s_ij - log sum_k exp(s_ik)``; ``H`` untrusted pairs. Sets of rows are masks, so
that nothing here waits for the device.
"""

import torch
from torch import Tensor
from torch.nn import functional

from vision_core.training.runtime import full_float32

TEMPERATURE = 0.07
_FACTOR = -0.5  # T / (2 T)


def contrast_loss(  # noqa: PLR0913 (two tensors, and the settings by name)
    features: Tensor,
    labels: Tensor,
    *,
    rows: Tensor | None = None,
    untrusted: Tensor | None = None,
    alpha: float = 0.0,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Compute the contrast loss: rows of one label attract each other, all rows repel.

    ``L_i = -0.5 * mean_j l_ij`` over the rows ``j`` of the label of ``i``, itself included, and over ``k`` all rows in
    ``l_ij``, itself included. The loss is the mean of those ``L_i`` that are not 0. Where ``untrusted`` has a pair, it
    is ``alpha`` times the loss over the untrusted partners of a row plus ``1 - alpha`` times that over the others, with
    ``1e-5`` added to the number of partners.

    Args:
        features: ``(n, D)``.
        labels: ``(n,)``.
        rows: ``(n,)`` bool, rows that take part; all if None.
        untrusted: ``(n, n)`` bool, ``H``; none if None.
        alpha: Share of the untrusted partners.
        temperature: ``T``.

    Returns:
        A scalar, 0 where no row takes part.
    """
    if not len(labels):
        return features.sum()  # zero, with a gradient
    with full_float32(features.device):
        vectors = functional.normalize(features.float(), dim=1)
        similarity = vectors @ vectors.T / temperature
    is_self = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positives = labels[:, None] == labels
    if rows is not None:
        # A row that takes no part sees itself, so that its logarithm is finite; it is left out of the mean.
        positives = positives & rows & rows[:, None] | is_self
        similarity = similarity.masked_fill(~(rows | is_self), -torch.inf)
    log_shares = similarity - similarity.logsumexp(dim=1, keepdim=True)
    # Of a row that takes no part this is minus infinity, which times 0 is not 0.
    log_shares = log_shares.masked_fill(~positives, 0.0)
    if untrusted is None:
        each = _FACTOR * _mean(log_shares, positives.to(similarity.dtype), 0.0)
    else:
        doubted = untrusted & positives
        added = 1e-5 * doubted.any().to(similarity.dtype)
        each = _FACTOR * _mean(log_shares, (positives & ~doubted).to(similarity.dtype), added)
        if alpha:
            of_doubted = _FACTOR * _mean(log_shares, doubted.to(similarity.dtype), added)
            each = torch.where(doubted.any(), alpha * of_doubted + (1 - alpha) * each, each)
    if rows is not None:
        each = each.masked_fill(~rows, 0.0)
    return each.sum() / (each.detach() != 0).sum().clamp(min=1)


def untrusted_pairs(features: Tensor, labels: Tensor, background: int) -> Tensor:
    """Find the pairs of one class that are not near each other: ``H``, ``(N, N)`` bool, not symmetric.

    Of a class of ``k + 1`` rows, a row trusts those of its partners that are among its ``k`` nearest rows of any class.

    Args:
        features: ``(N, D)``, ``g`` of the teacher.
        labels: ``(N,)``; rows of ``background`` distrust nobody.
        background: Label of background.
    """
    with torch.no_grad(), full_float32(features.device):
        vectors = functional.normalize(features.float(), dim=1)
        similarity = vectors @ vectors.T
        is_self = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        partners = (labels[:, None] == labels) & ~is_self & (labels != background)
        order = similarity.masked_fill(is_self, -torch.inf).argsort(dim=1, descending=True, stable=True)
        places = torch.arange(len(labels), device=labels.device).expand_as(order)
        rank = torch.empty_like(order).scatter(1, order, places)  # (N, N), 0 is the nearest
        return partners & (rank >= partners.sum(dim=1, keepdim=True))


def instance_loss(  # noqa: PLR0913 (three tensors, their number, and the settings by name)
    weak: Tensor,
    strong: Tensor,
    instances: Tensor,
    num_objects: int,
    *,
    temperature: float = TEMPERATURE,
    as_released: bool = False,
) -> Tensor:
    """Compute the contrast loss between instances, over both views of the student at the same proposals.

    Args:
        weak: ``(N, D)``, ``g`` of the student on the weak view.
        strong: ``(N, D)``, ``g`` of the student on the strong view.
        instances: ``(N,)``, number of the pseudo label that a proposal belongs to; -1 for background.
        num_objects: Number of pseudo labels, which becomes the number of background.
        temperature: ``T``.
        as_released: Number background by how many different numbers there are, which can be that of an object.
    """
    if as_released:
        numbers = torch.arange(-1, num_objects, device=instances.device)
        background = (instances[:, None] == numbers).any(dim=0).sum()
        ids = torch.where(instances < 0, background, instances)
    else:
        ids = torch.where(instances < 0, num_objects, instances)
    return contrast_loss(torch.cat([weak, strong]), ids.repeat(2), temperature=temperature)


def _mean(values: Tensor, weights: Tensor, added: float | Tensor) -> Tensor:
    return (values * weights).sum(dim=1) / (weights.sum(dim=1) + added)
