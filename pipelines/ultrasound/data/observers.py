"""Targets from the masks of several observers, and whether they say that the organ is there."""

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.config import CONSENSUS_SHARE, FrameLabel, LabelMode
from pipelines.ultrasound.data.frames import Mask


def target(
    masks: Mask, mode: LabelMode, rng: np.random.Generator, consensus_share: float = CONSENSUS_SHARE
) -> NDArray[np.float32]:
    """Make the training target ``(H, W)`` of a frame.

    ``random`` takes one observer, ``vote`` the strict majority, ``mean`` the share of observers, ``combination`` the
    vote with probability ``consensus_share`` and else one observer. Two numbers are drawn in every mode.

    Args:
        masks: ``(k, H, W)`` of one observer or more.
        mode: How they become one target.
        rng: Of this frame at this access.
        consensus_share: For ``combination``.
    """
    is_consensus, observer = rng.random() < consensus_share, rng.integers(len(masks))
    if mode == "mean":
        return np.asarray(masks.mean(axis=0, dtype=np.float32))
    if mode == "vote" or (mode == "combination" and is_consensus):
        return np.asarray(vote(masks), np.float32)
    return np.asarray(masks[observer], np.float32)


def vote(masks: Mask) -> Mask:
    """Take the strict majority of masks ``(k, H, W)``; a tie is background."""
    return np.asarray(2 * masks.sum(axis=0) > len(masks))


def is_present(masks: Mask, rule: FrameLabel = "observer_majority") -> bool:
    """Tell whether a frame shows the organ: to most observers, or in a pixel on which most agree.

    Observers may all see it and agree on no pixel: see ``has_empty_consensus``.
    """
    if rule == "consensus_nonempty":
        return bool(vote(masks).any())
    return bool(2 * masks.any(axis=(1, 2)).sum() > len(masks))


def has_empty_consensus(masks: Mask) -> bool:
    """Tell whether most observers see the organ but agree on no pixel; such frames are counted and told."""
    return is_present(masks) and not vote(masks).any()


def pairwise_dice(masks: Mask) -> NDArray[np.float64]:
    """Compute the Dice of each two observers ``(k, k)``; 1 on the diagonal and between empty masks."""
    flat = masks.reshape(len(masks), -1).astype(np.float64)
    shared, areas = flat @ flat.T, flat.sum(axis=1)
    sums = areas[:, None] + areas
    return np.asarray(np.divide(2 * shared, sums, out=np.ones_like(sums), where=sums > 0))
