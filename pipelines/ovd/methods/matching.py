"""Assignment of regions to labelled boxes: the ordinary one, and in two strata, base boxes first.

Source: MarvelOVD (arXiv 2407.21465), stratified label assignment. A pseudo-label may lie on a labelled object; matched
in one go it would take regions away from it. Symbols: ``IoU`` ``(M, N)`` of ``M`` boxes and ``N`` regions, ``tau`` the
threshold.
"""

import torch
from torch import Tensor

_ABSENT = -1.0  # below every overlap


def ordinary_match(iou: Tensor, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """Match each region with the box that it overlaps most.

    Args:
        iou: ``(M, N)``.
        threshold: Least overlap of a match, inclusive.

    Returns:
        Row of the box ``(N,)`` int64, meaningless where nothing matches, and whether it matches ``(N,)`` bool.
    """
    if not len(iou):
        return _no_match(iou)
    overlap, row = iou.max(dim=0)
    return row, overlap >= threshold


def stratified_match(iou: Tensor, is_base: Tensor, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """Match each region with a base box, and only where none fits with a pseudo-label.

    ``b_j = argmax_{i base} IoU_ij`` where ``IoU_{b_j j} >= tau``, else ``n_j = argmax_{i pseudo} IoU_ij`` where
    ``IoU_{n_j j} >= tau``, else background. A base box wins even where a pseudo-label overlaps more.

    Args:
        iou: ``(M, N)``.
        is_base: ``(M,)`` bool; the other rows are pseudo-labels.
        threshold: Least overlap of a match, inclusive.

    Returns:
        As ``ordinary_match``, to which this comes down where all rows are of one kind.
    """
    if not len(iou):
        return _no_match(iou)
    base, base_row = iou.masked_fill(~is_base[:, None], _ABSENT).max(dim=0)
    pseudo, pseudo_row = iou.masked_fill(is_base[:, None], _ABSENT).max(dim=0)
    row = torch.where(base >= threshold, base_row, pseudo_row)
    return row, (base >= threshold) | (pseudo >= threshold)


def _no_match(iou: Tensor) -> tuple[Tensor, Tensor]:
    row = torch.zeros(iou.shape[1], dtype=torch.int64, device=iou.device)
    return row, row.bool()
