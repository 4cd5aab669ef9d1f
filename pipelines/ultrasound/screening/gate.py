"""The gate: frames whose score is above a threshold reach the segmenter; and what decisions about frames are worth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import DataError

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class FrameCounts:
    """Frames by decision and truth, positive where the organ is present. Shares of nothing are NaN."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def precision(self) -> float:
        """Return the share of positive decisions that are right."""
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Return the share of present frames that are found."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """Return the share of absent frames that are told as absent."""
        return _share(self.true_negative, self.true_negative + self.false_positive)

    @property
    def accuracy(self) -> float:
        """Return the share of right decisions."""
        errors = self.false_positive + self.false_negative
        right = self.true_positive + self.true_negative
        return _share(right, right + errors)

    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall."""
        errors = self.false_positive + self.false_negative
        return _share(2 * self.true_positive, 2 * self.true_positive + errors)

    @property
    def false_positive_rate(self) -> float:
        """Return the share of absent frames that are told as present."""
        return _share(self.false_positive, self.true_negative + self.false_positive)

    @property
    def false_negative_rate(self) -> float:
        """Return the share of present frames that are missed."""
        return _share(self.false_negative, self.true_positive + self.false_negative)

    def cost(self, false_positive: float = 1.0, false_negative: float = 1.0) -> float:
        """Weigh both kinds of error."""
        return false_positive * self.false_positive + false_negative * self.false_negative


def accepted(scores: Floats, threshold: float) -> Flags:
    """Select the frames ``(n,)`` whose score is above the threshold; one that equals it is rejected.

    Raises:
        DataError: A score is NaN, which would be a rejection without a reason.
    """
    if np.isnan(scores).any():
        raise DataError(
            f"'{int(np.isnan(scores).sum())}' of {len(scores)} frames have a score that is no number. "
            "Check the screen and the frames."
        )
    return np.asarray(scores.astype(np.float64) > threshold)  # NumPy would round the threshold to float32 scores


def gated(masks: Flags, scores: Floats, threshold: float) -> Flags:
    """Empty the masks ``(n, H, W)`` of rejected frames."""
    return np.asarray(masks & accepted(scores, threshold)[:, None, None])


def count_frames(decided: Flags, present: Flags) -> FrameCounts:
    """Count the decisions ``(n,)`` about frames against whether the organ is present ``(n,)``."""
    return FrameCounts(
        true_positive=int((decided & present).sum()),
        false_positive=int((decided & ~present).sum()),
        false_negative=int((~decided & present).sum()),
        true_negative=int((~decided & ~present).sum()),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
