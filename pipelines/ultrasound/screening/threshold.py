"""Choice of the gate's threshold: by cost on validation frames, or by control of the share of missed frames."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.evaluation.scores import DiceMeans, Segmented, dice_means
from pipelines.ultrasound.screening.gate import FrameCounts, accepted, count_frames
from vision_core.errors import ConfigError, DataError

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]

GRID: NDArray[np.float64] = np.linspace(0, 0.6, 20)  # as published
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The gate at one threshold.

    Attributes:
        threshold: Scores above it are accepted.
        counts: Frames by decision: accepted, and a mask that is not empty.
        accepted_share: Share of the frames that reach the segmenter.
        dice: Means of Dice behind the gate.
    """

    threshold: float
    counts: FrameCounts
    accepted_share: float
    dice: DiceMeans


@dataclass(frozen=True, kw_only=True)
class RiskControl:
    """A threshold under which, on average over new subjects, at most a share of present frames is missed.

    Attributes:
        threshold: The highest that keeps the promise.
        alpha: The share.
        num_subjects: Calibration subjects with present frames; those without say nothing about missed ones.
        missed_share: Their mean share of missed frames at the threshold.
    """

    threshold: float
    alpha: float
    num_subjects: int
    missed_share: float


def curve(scores: Floats, frames: Segmented, grid: Iterable[float] = GRID) -> list[CurvePoint]:
    """Compute the gate's decisions at each threshold; scores and masks are computed once for all.

    Args:
        scores: ``(n,)`` of the screen.
        frames: What the segmenter makes of each of them.
        grid: Thresholds.
    """
    points = []
    for threshold in grid:
        passed = accepted(scores, float(threshold))
        points.append(
            CurvePoint(
                threshold=float(threshold),
                counts=count_frames(passed & frames.has_mask, frames.present),
                accepted_share=float(passed.mean()) if len(passed) else float("nan"),
                dice=dice_means(frames, passed),
            )
        )
    return points


def cheapest(points: Sequence[CurvePoint], *, false_positive: float = 1.0, false_negative: float = 1.0) -> CurvePoint:
    """Choose the point of least cost, of equal ones the smallest threshold.

    Args:
        points: Of validation frames, never of test frames.
        false_positive: Cost of a frame with a mask and no organ.
        false_negative: Cost of a missed frame.
    """
    return min(points, key=lambda point: (point.counts.cost(false_positive, false_negative), point.threshold))


def subjects_needed(alpha: float) -> int:
    """Compute the fewest calibration subjects of a promise: ``1 / alpha - 1``.

    Raises:
        ConfigError: ``alpha`` is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"The share of missed frames is '{alpha:g}'. Give a share between 0 and 1.")
    return math.ceil(1 / alpha - 1 - _ROUNDING)


def risk_controlled(
    scores: Floats, present: Flags, subjects: Sequence[str], alpha: float = 0.1, *, chosen_on: Iterable[str] = ()
) -> RiskControl:
    """Find the highest threshold whose expected share of missed frames per subject is at most ``alpha``.

    Conformal risk control (Angelopoulos et al., ICLR 2024) over subjects, as frames of one subject are alike: the sum
    of their shares plus one, over their number plus one, stays within ``alpha``.

    Args:
        scores: ``(n,)`` of the screen on calibration frames.
        present: ``(n,)`` whether the organ is there.
        subjects: ``(n,)`` whose frames they are.
        alpha: Largest expected share.
        chosen_on: Subjects that chose weights or a threshold before; none may be among ``subjects``.

    Raises:
        ConfigError: ``alpha`` is not between 0 and 1.
        DataError: Too few subjects have present frames, one was used before, or a score is no number.
    """
    named = np.asarray(subjects, dtype=str)
    if shared := sorted(set(named.tolist()) & set(chosen_on)):
        raise DataError(
            f"'{len(shared)}' subjects, such as '{shared[0]}', have chosen the model or its threshold already. "
            "Calibrate on others."
        )
    needed = subjects_needed(alpha)
    accepted(scores, 0.0)  # refuses scores that are no numbers
    own = [np.sort(scores[present & (named == each)]) for each in np.unique(named)]
    own = [each for each in own if len(each)]
    if len(own) < needed:
        raise DataError(
            f"'{len(own)}' calibration subjects have frames with the organ; a share of {alpha:g} needs {needed}. "
            "Add subjects, or allow a larger share."
        )

    def missed(threshold: float) -> float:
        return sum(float(np.searchsorted(each, threshold, side="right")) / len(each) for each in own)

    allowed = alpha * (len(own) + 1) - 1 + _ROUNDING
    # The risk jumps at each score; just below a score, in the precision of the scores, its frame is accepted still.
    levels = np.unique(np.concatenate(own))
    candidates = np.nextafter(levels, np.array(-np.inf, levels.dtype)).astype(np.float64)
    low, high = 0, len(candidates) - 1  # the lowest candidate misses no frame
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if missed(candidates[middle]) <= allowed else (low, middle - 1)
    threshold = float(candidates[low])
    return RiskControl(
        threshold=threshold, alpha=alpha, num_subjects=len(own), missed_share=missed(threshold) / len(own)
    )
