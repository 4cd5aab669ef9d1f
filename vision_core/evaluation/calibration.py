"""What a prediction may claim: calibrated probabilities, sets of classes with a guarantee, and a guard of its scope.

All three are fitted on cases that did not train the model, and travel in the card of its bundle.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from vision_core.errors import CheckpointError

Floats = NDArray[np.floating]

_SHARPEST, _FLATTEST = 0.01, 100.0  # temperatures; beyond them probabilities are 0, 1 or equal anyway


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How logits become probabilities, and sets of classes.

    Attributes:
        temperature: What logits are divided by before the softmax.
        coverage: Share of new cases whose true class is in their set, at least.
        threshold: A class is in the set when one minus its probability, without temperature, is at most this;
            infinite where there were too few cases for the coverage: then every class is in every set.
        num_cases: Cases that it was fitted on.
    """

    temperature: float
    coverage: float
    threshold: float
    num_cases: int

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        """Calibrated probabilities ``(..., C)`` of logits, or of logarithms of probabilities, ``(..., C)``."""
        return np.asarray(softmax(np.asarray(logits, np.float64) / self.temperature, axis=-1))

    def sets(self, logits: Floats) -> NDArray[np.bool_]:
        """Which classes are in the set of each case: ``(..., C)`` for logits ``(..., C)``; a set may be empty."""
        return nonconformity(logits) <= self.threshold

    def to_record(self) -> dict[str, Any]:
        """A JSON-ready record; ``None`` stands for an infinite threshold."""
        return {
            "temperature": self.temperature,
            "coverage": self.coverage,
            "threshold": self.threshold if math.isfinite(self.threshold) else None,
            "cases": self.num_cases,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Calibration":
        """What ``to_record`` gave.

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
    """Fit temperature and sets on held-out cases.

    The sets use probabilities without temperature: both may then be fitted on the same cases, and the guarantee holds.

    Args:
        logits: ``(n, C)``, or logarithms of probabilities; ``n`` may be 0.
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
    """The temperature with the least cross-entropy (Guo et al., ICML 2017); 1 without cases.

    The targets are Laplace's estimates, ``(n + 1) / (n + C)`` for the true class, as Platt (1999) advised: a model
    that gets a few cases all right does not become certain.

    Args:
        logits: ``(n, C)``.
        labels: ``(n,)`` true classes.
    """
    num_cases, num_classes = logits.shape
    if num_cases == 0:
        return 1.0
    targets = np.full((num_cases, num_classes), 1 / (num_cases + num_classes))
    targets[np.arange(num_cases), labels] = (num_cases + 1) / (num_cases + num_classes)
    wide = np.asarray(logits, np.float64)

    def loss(log_sharpness: float) -> float:
        return -float((targets * log_softmax(wide * math.exp(log_sharpness), axis=1)).sum(axis=1).mean())

    limits = (-math.log(_FLATTEST), -math.log(_SHARPEST))
    found = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-8})
    return math.exp(-float(found.x))


def nonconformity(logits: Floats) -> NDArray[np.float64]:
    """One minus the probability of each class: ``(..., C)`` for logits ``(..., C)``."""
    return np.asarray(1 - softmax(np.asarray(logits, np.float64), axis=-1))


def conformal_threshold(true_scores: Floats, coverage: float) -> float:
    """The largest nonconformity that a class in a set may have (split conformal; Vovk; Sadinle et al., JASA 2019).

    A new case's true class is below it with a probability of at least ``coverage``, if the case is exchangeable with
    those given: it is the ``ceil((n + 1) coverage)``-th smallest.

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
    """Whether a set ``(..., C)`` names no class or several, so that none should be called: ``(...)``."""
    return np.asarray(sets.sum(axis=-1) != 1)


def finite_sample_rank(num_cases: int, share: float) -> int:
    """Which of the sorted values of ``num_cases`` cases a new one stays below with a probability of ``share``."""
    if not 0 < share < 1:
        raise ValueError(f"expected a share between 0 and 1, found '{share:g}'")
    return math.ceil(round((num_cases + 1) * share, 9))  # 0.55 · 100 is a little more than 55
