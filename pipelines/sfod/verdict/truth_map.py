"""How often a box of this score and this stability is right, fitted on labels of the source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

Floats = NDArray[np.float64]
_SCORE_BINS, _STABILITY_BINS = 10, 4
_ROUNDS, _TOLERANCE = 1000, 1e-9


@dataclass(frozen=True, kw_only=True)
class TruthMap:
    """Probability that a detection is right, rising with its score and with its stability.

    Attributes:
        scores: ``(S,)`` lower edges of the bins of score, ascending.
        stabilities: ``(T,)`` lower edges of the bins of stability, ascending.
        probability: ``(S, T)``, never falling along a row or a column.
    """

    scores: Floats
    stabilities: Floats
    probability: Floats

    def __call__(self, scores: Floats, stabilities: Floats) -> Floats:
        """Look up boxes ``(K,)``; one below all edges is in the first bin."""
        return self.probability[_bins(scores, self.scores), _bins(stabilities, self.stabilities)]

    def to_record(self) -> dict[str, list[float] | list[list[float]]]:
        """Convert to a JSON-ready record."""
        return {
            "scores": self.scores.tolist(),
            "stabilities": self.stabilities.tolist(),
            "probability": self.probability.tolist(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Sequence[float] | Sequence[Sequence[float]]]) -> "TruthMap":
        """Restore a map from its record.

        Raises:
            ValueError: It is no map: shapes differ, a probability is not one, or falls where it has to rise.
        """
        scores, stabilities, probability = (
            np.asarray(record[name], np.float64) for name in ("scores", "stabilities", "probability")
        )
        rises = all((np.diff(probability, axis=axis) >= -_TOLERANCE).all() for axis in (0, 1))
        if probability.shape != (len(scores), len(stabilities)) or not rises:
            raise ValueError("The map from score and stability to truth has another shape, or falls.")
        if not ((probability >= 0) & (probability <= 1)).all() or (np.diff(scores) <= 0).any():
            raise ValueError("The map from score and stability to truth holds what is no probability or no edge.")
        return cls(scores=scores, stabilities=stabilities, probability=probability)


def fit_truth_map(scores: Floats, stabilities: Floats, right: NDArray[np.bool_]) -> TruthMap:
    """Fit the map on labelled detections.

    Detections are binned by quantiles of both; the shares of right ones become the nearest table (least squares,
    weighted by detections) that falls along neither side. An empty bin takes what its neighbours allow.

    Args:
        scores: ``(K,)``.
        stabilities: ``(K,)``, in [0, 1].
        right: ``(K,)`` whether a labelled object of the class was hit.

    Raises:
        ValueError: There is no detection.
    """
    if not len(scores):
        raise ValueError("No detection to fit on.")
    edges = _edges(scores, _SCORE_BINS), _edges(stabilities, _STABILITY_BINS)
    places = _bins(scores, edges[0]), _bins(stabilities, edges[1])
    counts, hits = np.zeros((2, len(edges[0]), len(edges[1])))
    np.add.at(counts, places, 1)
    np.add.at(hits, places, right)
    shares = np.divide(hits, counts, out=np.full_like(hits, right.mean()), where=counts > 0)
    return TruthMap(scores=edges[0], stabilities=edges[1], probability=_monotone(shares, np.maximum(counts, 1e-6)))


def _edges(values: Floats, bins: int) -> Floats:
    """Cut values into at most ``bins`` of about equal count; equal values stay together."""
    cuts: Floats = np.unique(np.quantile(values, np.arange(bins) / bins, method="lower"))
    return cuts


def _bins(values: Floats, edges: Floats) -> NDArray[np.int64]:
    return np.maximum(np.searchsorted(edges, values, side="right") - 1, 0)


def _monotone(table: Floats, weights: Floats) -> Floats:
    """Project a table onto those that never fall along rows or columns: Dykstra's alternating projections."""
    current, left_over = table, np.zeros((2, *table.shape))
    for _ in range(_ROUNDS):
        before = current
        for axis in (0, 1):
            wanted = current + left_over[axis]
            current = _rising(wanted, weights, axis)
            left_over[axis] = wanted - current
        if np.abs(current - before).max() < _TOLERANCE:
            break
    # The last projection was along rows: what columns still fall short by is below the tolerance.
    return np.clip(np.maximum.accumulate(np.maximum.accumulate(current, axis=0), axis=1), 0, 1)


def _rising(table: Floats, weights: Floats, axis: int) -> Floats:
    lines, loads = np.moveaxis(table, axis, -1), np.moveaxis(weights, axis, -1)
    fitted = [isotonic_regression(line, weights=load).x for line, load in zip(lines, loads, strict=True)]
    return np.moveaxis(np.stack(fitted), -1, axis)
