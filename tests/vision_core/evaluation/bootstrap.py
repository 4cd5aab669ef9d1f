"""Bootstrap of a metric over single slides."""

from collections.abc import Callable

import numpy as np

from vision_core.evaluation.classification import Floats, Labels, resamples


def bootstrap(
    metric: Callable[[Labels, Floats], float], labels: Labels, predictions: Floats, fold: int, samples: int = 1000
) -> Floats:
    """Compute the metric on resampled slides ``(samples,)``; resamples without a class are left out."""
    draws = resamples([np.array([row]) for row in range(len(labels))], labels, fold, samples)
    return np.array([metric(labels[rows], predictions[rows]) for rows in draws])
