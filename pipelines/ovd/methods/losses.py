"""Losses of the sampled regions of all views: weighted cross-entropy, and L1 of the boxes.

Both are divided by the number ``R`` of sampled regions, not by the sum of the weights.
"""

from torch import Tensor
from torch.nn import functional


def classification_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Compute ``(1 / R) sum_i w_i CE(logits_i, y_i)``; 0 of no region.

    Args:
        logits: ``(R, K + 1)``, background last.
        labels: ``(R,)`` int64, ``K`` for background.
        weights: ``(R,)``.
    """
    if not len(labels):
        return logits.sum()  # zero, with a gradient
    each = functional.cross_entropy(logits.float(), labels, reduction="none")
    return (weights * each).sum() / len(labels)


def box_loss(deltas: Tensor, target: Tensor, is_counted: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute ``(1 / R) sum_{i counted} w_i |delta_i - target_i|_1``; 0 of no region.

    Args:
        deltas: ``(R, 4)``, predicted, of any class.
        target: ``(R, 4)``; may hold anything where ``is_counted`` is false.
        is_counted: ``(R,)`` bool: foreground regions that count.
        weights: ``(R,)``; as released all are 1 (None).
    """
    if not len(deltas):
        return deltas.sum()
    # Degenerate targets of regions that do not count may be infinite, and infinity times 0 is no number.
    target = target.where(is_counted[:, None], deltas.detach())
    each = (deltas - target).abs().sum(dim=1)
    return (each if weights is None else weights * each).sum() / len(deltas)
