"""Figures of merit of predicted probabilities, in plain numpy. Micro and macro are told apart by name."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_BOOTSTRAP_SEED = 7784414403328510413


def binary_auc(labels: Labels, scores: Floats) -> float:
    """Area under the ROC curve; equal scores count half, NaN where a class is missing or a score is not a number.

    Args:
        labels: ``(n,)`` of 0 and 1.
        scores: ``(n,)``, higher for 1.
    """
    positives, negatives = scores[labels == 1], np.sort(scores[labels == 0])
    if not len(positives) or not len(negatives) or np.isnan(scores).any():
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left") + np.searchsorted(negatives, positives, side="right")
    return float(below.mean() / 2 / len(negatives))


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


def macro_precision(labels: Labels, predicted: Labels) -> float:
    """Mean over the classes that occur of the share of the slides called so that are right; 0 where none is called."""
    classes = np.union1d(labels, predicted)
    return float(np.mean([(labels[predicted == each] == each).mean() if (predicted == each).any() else 0.0
                          for each in classes]))  # fmt: skip


def kappa(labels: Labels, predicted: Labels) -> float:
    """Cohen's kappa: agreement beyond what the frequencies of the classes give by chance; NaN where chance is sure."""
    classes = np.union1d(labels, predicted)
    chance = float(sum((labels == each).mean() * (predicted == each).mean() for each in classes))
    return (micro_accuracy(labels, predicted) - chance) / (1 - chance) if chance < 1 else float("nan")


def youden_threshold(labels: Labels, scores: Floats) -> float:
    """The score from which on (``>=``) calling a slide positive has the lowest FPR - TPR; the highest of equals.

    Args:
        labels: ``(n,)`` of 0 and 1, both present.
        scores: ``(n,)``, higher for 1.

    Returns:
        Infinity where no score is better than calling none positive.
    """
    thresholds = np.unique(scores)[::-1]
    called = scores[None] >= thresholds[:, None]  # (thresholds, n)
    is_positive = labels == 1
    true, false = called[:, is_positive].sum(axis=1), called[:, ~is_positive].sum(axis=1)
    # FPR - TPR times the numbers of both: whole numbers, so that what is equal is equal.
    cost = false * int(is_positive.sum()) - true * int((~is_positive).sum())
    best = int(cost.argmin())
    return float(thresholds[best]) if cost[best] < 0 else float("inf")


def bootstrap(
    metric: Callable[[Labels, Floats], float], labels: Labels, predictions: Floats, fold: int, samples: int = 1000
) -> Floats:
    """The metric on resampled slides ``(samples,)``; resamples without a class that occurs are left out.

    Args:
        metric: Of labels and predictions.
        labels: ``(n,)``.
        predictions: ``(n, ...)``.
        fold: Number of the fold, for the seed.
        samples: How many draws of ``n`` slides with replacement.
    """
    draws = resamples([np.array([row]) for row in range(len(labels))], labels, fold, samples)
    return np.array([metric(labels[rows], predictions[rows]) for rows in draws])


def resamples(units: Sequence[Labels], labels: Labels, fold: int, samples: int = 1000) -> list[Labels]:
    """Rows of each bootstrap sample: units with all their rows, drawn with replacement.

    Args:
        units: The rows of each independent unit: of a patient, all slides.
        labels: ``(n,)``; samples without a class that occurs here are left out.
        fold: Number of the fold, for the seed.
        samples: How many draws of as many units as there are.
    """
    draws = np.random.default_rng(fold + _BOOTSTRAP_SEED).integers(len(units), size=(samples, len(units)))
    present = np.unique(labels)
    rows = (np.concatenate([units[unit] for unit in draw]) for draw in draws)
    return [each for each in rows if np.isin(present, labels[each]).all()]
