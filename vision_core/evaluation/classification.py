"""Metrics of classifiers: areas under the ROC curve, F1, accuracy, kappa, thresholds, bootstrap.

Micro and macro are told apart by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


def auc(labels: Labels, probabilities: Floats) -> float:
    """Area under the ROC curve, macro over more than two classes.

    Args:
        labels: ``(n,)``.
        probabilities: ``(n, C)``.

    Returns:
        NaN where a class does not occur.
    """
    if probabilities.shape[1] == 2:
        return binary_auc(labels, probabilities[:, 1])
    return macro_auc(labels, probabilities)


def call(probabilities: NDArray[np.floating], threshold: float) -> Labels:
    """The class of each row ``(n, C)``: of two classes, 1 from the threshold on; else the most probable."""
    if probabilities.shape[-1] == 2:
        return np.asarray(probabilities[..., 1] >= threshold, np.int64)
    return np.asarray(probabilities.argmax(axis=-1), np.int64)


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


@dataclass(frozen=True, kw_only=True)
class MacroScores:
    """Means over the classes that have images; ``recall`` is also the balanced accuracy."""

    precision: float
    recall: float
    f1: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class RocAreas:
    """Areas under the ROC curve, ties counting one half.

    Attributes:
        one_vs_rest: ``(classes,)``; NaN where a class, or its rest, has no image.
        one_vs_one: ``(classes, classes)`` symmetric; NaN on the diagonal and for absent classes.
    """

    one_vs_rest: Floats
    one_vs_one: Floats

    @property
    def macro_one_vs_rest(self) -> float:
        """Mean over the classes that have images."""
        return _mean_of_known(self.one_vs_rest)

    @property
    def macro_one_vs_one(self) -> float:
        """Mean over the pairs of classes that have images."""
        return _mean_of_known(self.one_vs_one)


def macro_scores(truth: Labels, predicted: Labels, num_classes: int) -> MacroScores:
    """Macro precision, recall and F1, and the accuracy; a class that is never predicted has precision 0.

    Args:
        truth: ``(N,)``.
        predicted: ``(N,)``.
        num_classes: Classes of the model.
    """
    hits, actual, called = _counts(truth, predicted, num_classes)
    present = actual > 0
    return MacroScores(
        precision=float((hits / np.maximum(called, 1))[present].mean()),
        recall=float((hits / np.maximum(actual, 1))[present].mean()),
        f1=float((2 * hits / np.maximum(actual + called, 1))[present].mean()),
        accuracy=float(hits.sum() / len(truth)),
    )


def class_scores(truth: Labels, predicted: Labels, num_classes: int) -> tuple[Floats, Floats]:
    """Recall and F1 of each class ``(classes,)``; NaN for a class without images."""
    hits, actual, called = _counts(truth, predicted, num_classes)
    with np.errstate(invalid="ignore"):
        recalls, f1s = hits / actual, 2 * hits / (actual + called)
    return np.where(actual > 0, recalls, np.nan), np.where(actual > 0, f1s, np.nan)


def roc_areas(truth: Labels, scores: Floats) -> RocAreas:
    """Areas of every class against the rest and of every pair of classes, in ``classes`` sorts of the images.

    Args:
        truth: ``(N,)``.
        scores: ``(N, classes)``; a pair is judged by both of its columns, which are averaged.
    """
    num_classes = scores.shape[1]
    wins = np.stack([_mean_wins(truth, scores[:, each], each, num_classes) for each in range(num_classes)])
    counts = np.bincount(truth, minlength=num_classes) * (1 - np.eye(num_classes, dtype=np.int64))
    with np.errstate(invalid="ignore"):
        one_vs_rest = np.nansum(wins * counts, axis=1) / counts.sum(axis=1)
    one_vs_rest[np.isnan(wins).all(axis=1)] = np.nan
    return RocAreas(one_vs_rest=one_vs_rest, one_vs_one=(wins + wins.T) / 2)


def top_k_accuracy(truth: Labels, scores: Floats, k: int) -> float:
    """Share of the images ``(N,)`` whose class is among the ``k`` highest ``scores`` ``(N, classes)``."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == truth[:, None]).any(axis=1).mean())


def _counts(truth: Labels, predicted: Labels, num_classes: int) -> tuple[Labels, Labels, Labels]:
    """Hits, images and calls of each class."""
    confusion = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)  # truth, predicted
    return np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def _mean_wins(truth: Labels, scores: Floats, positive: int, num_classes: int) -> Floats:
    """How often an image of class ``positive`` scores above one of each other class: ``(classes,)``, NaN if unknown."""
    ours = np.sort(scores[truth == positive])
    below_or_tied = np.searchsorted(ours, scores, side="left") + np.searchsorted(ours, scores, side="right")
    counts = np.bincount(truth, minlength=num_classes).astype(np.float64)
    counts[positive] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        wins = 1 - below_or_tied / (2 * len(ours)) if len(ours) else np.full(len(scores), np.nan)
        areas: Floats = np.bincount(truth, weights=wins, minlength=num_classes) / counts
    return areas


def _mean_of_known(areas: Floats) -> float:
    known = areas[~np.isnan(areas)]
    return float(known.mean()) if len(known) else float("nan")
