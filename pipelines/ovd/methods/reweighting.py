"""Weights of the classification loss of regions that were matched with pseudo-labels.

Source: MarvelOVD (arXiv 2407.21465), adaptive reweighting. Symbols: ``s`` the mined score of the matched pseudo-label,
``p_bg`` the detector's probability of background at the region on the weak view, ``lambda'`` and ``gamma``.
"""

import torch
from torch import Tensor


def adaptive_weights(
    score: Tensor, background: Tensor, is_pseudo: Tensor, *, score_weight: float = 0.5, scale: float = 2.0
) -> Tensor:
    """Weigh regions by the score of their label and by how little they look like background.

    ``w_i = gamma (lambda' s_i + (1 - lambda')(1 - p_bg,i))`` for regions of a pseudo-label, 1 for all others.

    Args:
        score: ``(R,)``, ``s`` of the matched label; not used where ``is_pseudo`` is false.
        background: ``(R,)``, ``p_bg``.
        is_pseudo: ``(R,)`` bool: foreground, matched with a pseudo-label.
        score_weight: ``lambda'``.
        scale: ``gamma``.

    Returns:
        ``(R,)`` without gradient.
    """
    weights = scale * (score_weight * score + (1 - score_weight) * (1 - background))
    return torch.where(is_pseudo, weights, torch.ones_like(weights)).detach()


def confidence_weights(confidence: Tensor, is_pseudo: Tensor) -> Tensor:
    """Weigh regions of a pseudo-label by its confidence ``(R,)``, all others by 1, without gradient."""
    return torch.where(is_pseudo, confidence, torch.ones_like(confidence)).detach()
