"""The scope of a model: the distance of an input from the training features."""

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import CheckpointError
from vision_core.evaluation.calibration import Floats, finite_sample_rank

_MIN_SPREAD = 1e-3  # of the mean's size: the rounding error of a feature that never varied


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Normal distribution of training features: a few principal axes, equal variance elsewhere.

    Attributes:
        mean: ``(D,)`` float32.
        axes: ``(K, D)`` float16, orthonormal.
        variances: ``(K,)`` float32 along the axes.
        rest: Variance in every other direction.
        threshold: Largest distance inside the scope.
        false_alarms: Expected share of cases outside, among cases like the held-out ones.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float16]
    variances: NDArray[np.float32]
    rest: float
    threshold: float
    false_alarms: float

    def to_record(self) -> dict[str, Any]:
        """Convert to a JSON-ready record: 8 kB for 512 features and four axes."""
        return {
            "mean": _encoded(self.mean, "<f4"),
            "axes": _encoded(self.axes, "<f2"),
            "variances": [float(variance) for variance in self.variances],
            "rest": self.rest,
            "threshold": self.threshold,
            "false_alarms": self.false_alarms,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Scope":
        """Restore a scope from its record.

        Raises:
            CheckpointError: The record is damaged.
        """
        try:
            mean = _decoded(record["mean"], "<f4").astype(np.float32)
            variances = np.array(record["variances"], np.float32)
            scope = cls(
                mean=mean,
                axes=_decoded(record["axes"], "<f2").astype(np.float16).reshape(len(variances), len(mean)),
                variances=variances,
                rest=float(record["rest"]),
                threshold=float(record["threshold"]),
                false_alarms=float(record["false_alarms"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise CheckpointError(f"The card's scope is damaged ({error!r}). Fetch the bundle again.") from error
        if not (np.isfinite(scope.mean).all() and (scope.variances > 0).all() and scope.rest > 0):
            raise CheckpointError("The card's scope holds numbers out of range. Fetch the bundle again.")
        return scope


def fit_scope(features: Floats, held_out: Floats, quantile: float = 0.99, num_axes: int = 4) -> Scope:
    """Fit the distribution of training features, and the threshold on held-out features.

    The covariance is that of probabilistic principal components (Tipping and Bishop, JRSS B 1999): well conditioned
    for any number of cases, and small.

    Args:
        features: ``(n, D)`` of training cases, at least one.
        held_out: ``(m, D)`` of cases the model has not trained on.
        quantile: Share of known cases that shall be inside. Where the held-out cases are too few, all of them are
            inside, and ``false_alarms`` is larger.
        num_axes: Number of axes to keep.

    Raises:
        ValueError: No case, features of another width, or NaN or infinity among them.
    """
    if not (len(features) and len(held_out) and features.shape[1:] == held_out.shape[1:]):
        raise ValueError(f"expected (n, D) and (m, D) with n, m > 0, found {features.shape} and {held_out.shape}")
    if not (np.isfinite(features).all() and np.isfinite(held_out).all()):
        raise ValueError("features: expected finite numbers, found NaN or infinity")
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviations = np.asarray(features, np.float64) - mean
    _, lengths, directions = np.linalg.svd(deviations, full_matrices=False)
    variances = lengths**2 / max(len(features) - 1, 1)
    kept = max(0, min(num_axes, len(features) - 1, features.shape[1] - 1))
    floor = _MIN_SPREAD**2 * float(np.square(mean, dtype=np.float64).mean()) + 1e-12
    rest = max(float(variances[kept:].sum()) / (features.shape[1] - kept), floor)
    scope = Scope(
        mean=mean,
        axes=directions[:kept].astype(np.float16),
        variances=np.maximum(variances[:kept], rest).astype(np.float32),
        rest=rest,
        threshold=math.inf,
        false_alarms=0.0,
    )
    rank = min(finite_sample_rank(len(held_out), quantile), len(held_out))
    threshold = float(np.sort(distance(scope, held_out))[rank - 1])
    return replace(scope, threshold=threshold, false_alarms=1 - rank / (len(held_out) + 1))


def distance(scope: Scope, features: Floats) -> NDArray[np.float64]:
    """Compute the distance ``(...)`` from the training features, in standard deviations per feature."""
    deviations = np.asarray(features, np.float64) - scope.mean
    with np.errstate(invalid="ignore"):
        along = deviations @ scope.axes.T.astype(np.float64)  # (..., K)
        beside = np.maximum(np.square(deviations).sum(axis=-1) - np.square(along).sum(axis=-1), 0)
    squares = (np.square(along) / scope.variances).sum(axis=-1) + beside / scope.rest
    return np.asarray(np.sqrt(squares / deviations.shape[-1]))


def outside(scope: Scope, features: Floats) -> NDArray[np.bool_]:
    """Decide whether features ``(..., D)`` are outside the scope ``(...)``; NaN is outside."""
    return ~(distance(scope, features) <= scope.threshold)


def _encoded(array: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(array.astype(dtype).tobytes()).decode("ascii")


def _decoded(text: str, dtype: str) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype)
