"""Mean features by class, background included: are classes apart, and are they where the source has them?

After the prototypical distance ratio (arXiv 2412.17284): distance between the classes over distance to the source. Ours
takes all pairs of classes, Euclidean distances of features that are not normalised, and counts a region for the class
that the detector itself gives it.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def distance_ratio(sums: Floats, counts: Floats, source: Floats, known: NDArray[np.bool_]) -> Floats:
    """Compute the ratio from sums of features.

    Args:
        sums: ``(..., C + 1, D)`` of features by class, background last.
        counts: ``(..., C + 1)`` regions they are sums of.
        source: ``(C + 1, D)`` mean features of the source on its own images.
        known: ``(C + 1,)`` whether the source has any.

    Returns:
        ``(...)``; NaN where fewer than two classes have a region, or nothing has moved.
    """
    has = (counts > 0) & known
    means = sums / np.maximum(counts, 1)[..., None]
    moved = np.linalg.norm(means - source, axis=-1)
    apart = np.linalg.norm(means[..., :, None, :] - means[..., None, :, :], axis=-1)
    pairs = np.triu(has[..., :, None] & has[..., None, :], 1)
    between = (apart * pairs).sum(axis=(-2, -1)), pairs.sum(axis=(-2, -1))
    to_source = (moved * has).sum(axis=-1), has.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (between[0] / between[1]) / (to_source[0] / to_source[1])
    return np.where(np.isfinite(ratio), ratio, np.nan)
