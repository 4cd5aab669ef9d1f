"""Figures of merit of predicted probabilities, in plain numpy. Micro and macro are told apart by name."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_BOOTSTRAP_SEED = 7784414403328510413


def binary_auc(labels: Labels, scores: Floats) -> float:
    """Area under the ROC curve; equal scores count half, NaN where a class is missing.

    Args:
        labels: ``(n,)`` of 0 and 1.
        scores: ``(n,)``, higher for 1.
    """
    positives = labels == 1
    num_positives, num_negatives = int(positives.sum()), int((~positives).sum())
    if not num_positives or not num_negatives:
        return float("nan")
    above = rankdata(scores)[positives].sum() - num_positives * (num_positives + 1) / 2
    return float(above / (num_positives * num_negatives))


def macro_auc(labels: Labels, probabilities: Floats) -> float:
    """Mean over the classes of the area of each against the rest; ``probabilities`` ``(n, C)``."""
    classes = range(probabilities.shape[1])
    return float(np.mean([binary_auc((labels == each).astype(np.int64), probabilities[:, each]) for each in classes]))


def micro_accuracy(labels: Labels, predicted: Labels) -> float:
    """Share of slides that are right."""
    return float((labels == predicted).mean())


def macro_accuracy(labels: Labels, predicted: Labels) -> float:
    """Mean over the classes of the share of their slides that are right (balanced accuracy)."""
    return float(np.mean([(predicted[labels == each] == each).mean() for each in np.unique(labels)]))


def macro_f1(labels: Labels, predicted: Labels) -> float:
    """Mean over the classes of the harmonic mean of precision and recall."""
    return float(np.mean([f1(labels == each, predicted == each) for each in np.union1d(labels, predicted)]))


def f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Harmonic mean of precision and recall of one class; 0 where nothing is right."""
    named = int(truth.sum()) + int(predicted.sum())
    return 2 * int((truth & predicted).sum()) / named if named else 0.0
