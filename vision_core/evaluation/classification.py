"""Metrics of classifiers: areas under the ROC curve, F1, accuracy, kappa, thresholds, bootstrap.

Scikit-learn computes metrics that are reported once. Areas, accuracies and ``macro_f1`` are our own for two reasons: a
bootstrap calls them a thousand times, where scikit-learn takes 50 to 500 times as long (measured on 130 and 1000
cases); and they choose the best epoch, where equal areas must be equal to the last bit, which sums of trapezoids are
not. Tests compare all of them with scikit-learn to 1e-12.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
_BOOTSTRAP_SEED = 7784414403328510413


def binary_auc(labels: Labels, scores: Floats) -> float:
    """Compute the area under the ROC curve; ties count half.

    Args:
        labels: ``(n,)`` of 0 and 1.
        scores: ``(n,)``, higher for 1.

    Returns:
        NaN where a class is absent or a score is NaN.
    """
    return float("nan") if np.isnan(scores).any() else float(_areas_against_each(labels, scores, 1, 2)[0])


def auc(labels: Labels, probabilities: Floats) -> float:
    """Compute the area under the ROC curve, macro one-vs-rest beyond two classes.

    Args:
        labels: ``(n,)``.
        probabilities: ``(n, C)``.

    Returns:
        NaN where a class is absent.
    """
    num_classes = probabilities.shape[1]
    if num_classes == 2:
        return binary_auc(labels, probabilities[:, 1])
    areas = [binary_auc((labels == each).astype(np.int64), probabilities[:, each]) for each in range(num_classes)]
    return float(np.mean(areas))


def call(probabilities: NDArray[np.floating], threshold: float) -> Labels:
    """Choose the class of each row ``(..., C)``.

    Of two classes, class 1 is chosen from the threshold on; else the most probable class.
    """
    if probabilities.shape[-1] == 2:
        return np.asarray(probabilities[..., 1] >= threshold, np.int64)
    return np.asarray(probabilities.argmax(axis=-1), np.int64)


def micro_accuracy(labels: Labels, predicted: Labels) -> float:
    """Compute the share of correct predictions."""
    return float((labels == predicted).mean())


def macro_accuracy(labels: Labels, predicted: Labels) -> float:
    """Compute balanced accuracy: the mean recall of the classes in ``labels``."""
    hits, actual, _ = _counts(labels, predicted)
    present = actual > 0
    return float((hits[present] / actual[present]).mean())


def macro_f1(labels: Labels, predicted: Labels, *, only_present: bool = False) -> float:
    """Compute the mean F1 of the classes in ``labels`` or ``predicted``.

    Args:
        labels: ``(n,)``.
        predicted: ``(n,)``.
        only_present: Leave out classes that occur in ``predicted`` alone, whose F1 is 0.
    """
    hits, actual, called = _counts(labels, predicted)
    chosen = actual > 0 if only_present else actual + called > 0
    return float((2 * hits[chosen] / (actual + called)[chosen]).mean())


def macro_precision(labels: Labels, predicted: Labels) -> float:
    """Compute the mean precision of the classes in ``labels`` or ``predicted``.

    A class that is never predicted has precision 0.
    """
    from sklearn.metrics import precision_score

    return float(precision_score(labels, predicted, average="macro", zero_division=0))


def kappa(labels: Labels, predicted: Labels) -> float:
    """Compute Cohen's kappa; NaN where labels and predictions are all of one class."""
    from sklearn.metrics import cohen_kappa_score

    is_constant = len(np.union1d(labels, predicted)) == 1
    return float("nan") if is_constant else float(cohen_kappa_score(labels, predicted))


def youden_threshold(labels: Labels, scores: Floats) -> float:
    """Find the threshold (``>=``) with the lowest FPR - TPR; the highest of equals.

    Args:
        labels: ``(n,)`` of 0 and 1, both present.
        scores: ``(n,)``, higher for 1.

    Returns:
        Infinity where no threshold is better than predicting class 0 throughout.
    """
    thresholds = np.unique(scores)[::-1]
    called = scores[None] >= thresholds[:, None]  # (thresholds, n)
    is_positive = labels == 1
    true, false = called[:, is_positive].sum(axis=1), called[:, ~is_positive].sum(axis=1)
    # FPR - TPR times both class sizes: whole numbers, so that equal costs compare as equal.
    cost = false * int(is_positive.sum()) - true * int((~is_positive).sum())
    best = int(cost.argmin())
    return float(thresholds[best]) if cost[best] < 0 else float("inf")


def resamples(units: Sequence[Labels], labels: Labels, fold: int, samples: int = 1000) -> list[Labels]:
    """Draw the rows of each bootstrap sample; a unit is drawn with all its rows.

    Args:
        units: The rows of each independent unit: of a patient, all slides.
        labels: ``(n,)``; samples that lack one of these classes are left out.
        fold: Number of the fold, for the seed.
        samples: Number of draws, each of ``len(units)`` units with replacement.
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
    """Areas under the ROC curve; ties count half.

    Attributes:
        one_vs_rest: ``(classes,)``; NaN where a class, or its rest, has no image.
        one_vs_one: ``(classes, classes)`` symmetric; NaN on the diagonal and for absent classes.
    """

    one_vs_rest: Floats
    one_vs_one: Floats

    @property
    def macro_one_vs_rest(self) -> float:
        """Average over the classes that have images."""
        return _mean_of_known(self.one_vs_rest)

    @property
    def macro_one_vs_one(self) -> float:
        """Average over the pairs of classes that have images."""
        return _mean_of_known(self.one_vs_one)


def macro_scores(truth: Labels, predicted: Labels) -> MacroScores:
    """Compute macro precision, recall and F1, and the accuracy.

    A class that is never predicted has precision 0.

    Args:
        truth: ``(N,)``.
        predicted: ``(N,)``.
    """
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, labels=np.unique(truth), average="macro", zero_division=0
    )
    accuracy = micro_accuracy(truth, predicted)
    return MacroScores(precision=float(precision), recall=float(recall), f1=float(f1), accuracy=accuracy)


def class_scores(truth: Labels, predicted: Labels, num_classes: int) -> tuple[Floats, Floats]:
    """Compute recall and F1 of each class ``(classes,)``; NaN without images."""
    from sklearn.metrics import precision_recall_fscore_support

    _, recalls, f1s, counts = precision_recall_fscore_support(
        truth, predicted, labels=np.arange(num_classes), zero_division=0
    )
    return np.where(counts > 0, recalls, np.nan), np.where(counts > 0, f1s, np.nan)


def roc_areas(truth: Labels, scores: Floats) -> RocAreas:
    """Compute the areas of all classes against the rest and of all pairs.

    Scikit-learn gives the mean over the pairs alone, and sorts the images for each pair anew.

    Args:
        truth: ``(N,)``.
        scores: ``(N, classes)``; the area of a pair is the mean over both of its columns.
    """
    num_classes = scores.shape[1]
    areas = np.stack([_areas_against_each(truth, scores[:, each], each, num_classes) for each in range(num_classes)])
    counts = np.bincount(truth, minlength=num_classes) * (1 - np.eye(num_classes, dtype=np.int64))
    with np.errstate(invalid="ignore"):
        one_vs_rest = np.nansum(areas * counts, axis=1) / counts.sum(axis=1)
    one_vs_rest[np.isnan(areas).all(axis=1)] = np.nan
    return RocAreas(one_vs_rest=one_vs_rest, one_vs_one=(areas + areas.T) / 2)


def top_k_accuracy(truth: Labels, scores: Floats, k: int) -> float:
    """Compute the share of images whose class is among the ``k`` highest scores.

    Of equal scores the first class counts as higher, as with ``argmax``; scikit-learn prefers the last.

    Args:
        truth: ``(N,)``.
        scores: ``(N, classes)``.
        k: Classes that may be named.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == truth[:, None]).any(axis=1).mean())


def _counts(truth: Labels, predicted: Labels) -> tuple[Labels, Labels, Labels]:
    """Count hits, true and predicted occurrences of each class."""
    num_classes = int(max(truth.max(), predicted.max())) + 1
    confusion = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)  # (truth, predicted)
    return np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def _areas_against_each(truth: Labels, scores: Floats, positive: int, num_classes: int) -> Floats:
    """Compute the area of class ``positive`` against each class ``(classes,)``.

    It is NaN for ``positive`` itself and for absent classes.
    """
    ours = np.sort(scores[truth == positive])
    losses = np.searchsorted(ours, scores, side="left") + np.searchsorted(ours, scores, side="right")
    wins = 2 * len(ours) - losses  # a tie counts 1, a win 2: sums of whole numbers are exact
    counts = np.bincount(truth, minlength=num_classes).astype(np.float64)
    counts[positive] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        areas: Floats = np.bincount(truth, weights=wins, minlength=num_classes) / (2 * len(ours)) / counts
    return areas


def _mean_of_known(areas: Floats) -> float:
    known = areas[~np.isnan(areas)]
    return float(known.mean()) if len(known) else float("nan")
