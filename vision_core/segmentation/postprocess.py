"""From probabilities to a mask: mean of an ensemble, threshold, largest component."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

THRESHOLD = 0.5


def mean_of_members(probabilities: Sequence[Floats]) -> NDArray[np.float32]:
    """Average the probabilities of an ensemble's members, arrays of one shape; a single one is returned."""
    if len(probabilities) == 1:
        return np.asarray(probabilities[0], np.float32)
    return np.asarray(np.mean(np.stack(probabilities), axis=0, dtype=np.float64), np.float32)


def vote_of_members(masks: Sequence[Mask]) -> Mask:
    """Take the strict majority of the members' masks; a tie is background."""
    return np.asarray(2 * np.sum(masks, axis=0) > len(masks))


def to_mask(probabilities: Floats) -> Mask:
    """Take the largest component of the pixels ``(H, W)`` above one half; NaN is background."""
    return largest_component(np.asarray(probabilities > THRESHOLD))


def largest_component(mask: Mask) -> Mask:
    """Keep the largest region of a mask ``(H, W)``, of equal ones the first row by row; an empty mask stays empty.

    Pixels that touch by a corner alone are apart.
    """
    labels, count = ndimage.label(mask)  # regions are numbered row by row
    if count <= 1:
        return np.asarray(mask, bool)
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(labels == 1 + sizes.argmax())
