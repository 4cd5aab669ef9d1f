"""Calibration of classifiers: temperature scaling and conformal sets of classes.

Both are fitted on cases that did not train the model, and are stored in the card of its bundle.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from vision_core.errors import CheckpointError

Floats = NDArray[np.floating]

_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.01, 100.0  # beyond them probabilities are 0, 1 or equal


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Temperature and conformal threshold of a classifier.

    Attributes:
        temperature: Divisor of logits before the softmax.
        coverage: Least share of new cases whose set holds the true class.
        threshold: A class is in the set if one minus its probability, at temperature 1, is at most this; infinite where
            there were too few cases for the coverage, so that every set holds all classes.
        num_cases: Number of cases it was fitted on.
    """

    temperature: float
    coverage: float
    threshold: float
    num_cases: int

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        """Compute calibrated probabilities ``(..., C)`` of logits or log-probabilities ``(..., C)``."""
        return np.asarray(softmax(np.asarray(logits, np.float64) / self.temperature, axis=-1))

    def sets(self, logits: Floats) -> NDArray[np.bool_]:
        """Compute the conformal set of each case as a mask ``(..., C)``; it may be empty."""
        return nonconformity(logits) <= self.threshold

    def to_record(self) -> dict[str, Any]:
        """Convert to a JSON-ready record; an infinite threshold becomes None."""
        return {
            "temperature": self.temperature,
            "coverage": self.coverage,
            "threshold": self.threshold if math.isfinite(self.threshold) else None,
            "cases": self.num_cases,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Calibration":
        """Restore a calibration from its record.

        Raises:
            CheckpointError: The record is damaged.
        """
        try:
            threshold = record["threshold"]
            found = cls(
                temperature=float(record["temperature"]),
                coverage=float(record["coverage"]),
                threshold=math.inf if threshold is None else float(threshold),
                num_cases=int(record["cases"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"The card's calibration is damaged ({error!r}). Fetch the bundle again.") from error
        if not (0 < found.temperature < math.inf and 0 < found.coverage < 1 and found.threshold >= 0):
            raise CheckpointError(f"The card's calibration '{dict(record)}' is out of range. Fetch the bundle again.")
        return found


def calibrate(logits: Floats, labels: NDArray[np.integer], coverage: float = 0.9) -> Calibration:
    """Fit temperature and conformal threshold on held-out cases.

    The sets use probabilities at temperature 1, so that both may be fitted on the same cases without loss of coverage.

    Args:
        logits: ``(n, C)``, or log-probabilities; ``n`` may be 0.
        labels: ``(n,)`` true classes.
        coverage: Wanted share of sets that hold the true class.
    """
    true_scores = np.take_along_axis(nonconformity(logits), labels[:, None], axis=1)[:, 0]  # (n,)
    return Calibration(
        temperature=fit_temperature(logits, labels),
        coverage=coverage,
        threshold=conformal_threshold(true_scores, coverage),
        num_cases=len(labels),
    )


def fit_temperature(logits: Floats, labels: NDArray[np.integer]) -> float:
    """Fit the temperature by cross-entropy (Guo et al., ICML 2017); 1 without cases.

    The targets are Laplace's estimates, ``(n + 1) / (n + C)`` for the true class, as Platt (1999) advised, so that a
    model with a few cases, all correct, does not become certain.

    Args:
        logits: ``(n, C)``.
        labels: ``(n,)`` true classes.
    """
    from scipy.optimize import minimize_scalar  # long to import, and most commands fit nothing

    num_cases, num_classes = logits.shape
    if num_cases == 0:
        return 1.0
    targets = np.full((num_cases, num_classes), 1 / (num_cases + num_classes))
    targets[np.arange(num_cases), labels] = (num_cases + 1) / (num_cases + num_classes)
    wide = np.asarray(logits, np.float64)

    def loss(log_sharpness: float) -> float:
        return -float((targets * log_softmax(wide * math.exp(log_sharpness), axis=1)).sum(axis=1).mean())

    limits = (-math.log(_MAX_TEMPERATURE), -math.log(_MIN_TEMPERATURE))
    found = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-8})
    return math.exp(-float(found.x))


def nonconformity(logits: Floats) -> NDArray[np.float64]:
    """Compute one minus the probability of each class ``(..., C)``."""
    return np.asarray(1 - softmax(np.asarray(logits, np.float64), axis=-1))


def conformal_threshold(true_scores: Floats, coverage: float) -> float:
    """Compute the threshold of split conformal prediction (Vovk; Sadinle et al., JASA 2019).

    It is the ``ceil((n + 1) coverage)``-th smallest score: the true class of a new, exchangeable case scores at most
    that with a probability of at least ``coverage``.

    Args:
        true_scores: ``(n,)`` nonconformity of the true class of each held-out case.
        coverage: Between 0 and 1.

    Returns:
        Infinity where ``n`` cases are too few for the coverage.

    Raises:
        ValueError: The coverage is not between 0 and 1.
    """
    rank = finite_sample_rank(len(true_scores), coverage)
    if rank > len(true_scores):
        return math.inf
    return float(np.sort(true_scores)[rank - 1])


def abstains(sets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Decide whether sets ``(..., C)`` hold no class or several ``(...)``."""
    return np.asarray(sets.sum(axis=-1) != 1)


def finite_sample_rank(num_cases: int, share: float) -> int:
    """Compute the rank among ``n`` sorted scores that bounds a new score with probability ``share``."""
    if not 0 < share < 1:
        raise ValueError(f"expected a share between 0 and 1, found '{share:g}'")
    return math.ceil(round((num_cases + 1) * share, 9))  # 0.55 · 100 is a little more than 55
