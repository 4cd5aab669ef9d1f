"""Scores of a classifier with many, possibly absent, classes.

Source of the pairwise areas: Hand and Till, "A simple generalisation of the area under the ROC curve", 2001.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]


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

    one_vs_rest: Scores
    one_vs_one: Scores

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


def class_scores(truth: Labels, predicted: Labels, num_classes: int) -> tuple[Scores, Scores]:
    """Recall and F1 of each class ``(classes,)``; NaN for a class without images."""
    hits, actual, called = _counts(truth, predicted, num_classes)
    with np.errstate(invalid="ignore"):
        recalls, f1s = hits / actual, 2 * hits / (actual + called)
    return np.where(actual > 0, recalls, np.nan), np.where(actual > 0, f1s, np.nan)


def roc_areas(truth: Labels, scores: Scores) -> RocAreas:
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


def top_k_accuracy(truth: Labels, scores: Scores, k: int) -> float:
    """Share of the images ``(N,)`` whose class is among the ``k`` highest ``scores`` ``(N, classes)``."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == truth[:, None]).any(axis=1).mean())


def _counts(truth: Labels, predicted: Labels, num_classes: int) -> tuple[Labels, Labels, Labels]:
    """Hits, images and calls of each class."""
    confusion = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)  # truth, predicted
    return np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def _mean_wins(truth: Labels, scores: Scores, positive: int, num_classes: int) -> Scores:
    """How often an image of class ``positive`` scores above one of each other class: ``(classes,)``, NaN if unknown."""
    ours = np.sort(scores[truth == positive])
    below_or_tied = np.searchsorted(ours, scores, side="left") + np.searchsorted(ours, scores, side="right")
    counts = np.bincount(truth, minlength=num_classes).astype(np.float64)
    counts[positive] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        wins = 1 - below_or_tied / (2 * len(ours)) if len(ours) else np.full(len(scores), np.nan)
        areas: Scores = np.bincount(truth, weights=wins, minlength=num_classes) / counts
    return areas


def _mean_of_known(areas: Scores) -> float:
    known = areas[~np.isnan(areas)]
    return float(known.mean()) if len(known) else float("nan")
