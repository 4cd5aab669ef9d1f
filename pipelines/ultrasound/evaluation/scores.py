"""Scores of a segmenter over frames: means of Dice by convention, means over subjects, comparison with observers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]
_LIMITS = 1.96  # standard deviations


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Mean over frames, with their number and standard deviation (of n - 1); NaN of too few."""

    mean: float
    spread: float
    count: int


@dataclass(frozen=True, kw_only=True)
class DiceMeans:
    """Means of Dice over frames; both masks empty count 1, one empty counts 0.

    Attributes:
        all_frames: Every frame, as the segmenter alone leaves it.
        present: Frames with the organ.
        found: Of these, the frames that also have a mask.
        accepted: Frames that pass the gate.
        end_to_end: Every frame behind the gate; a rejected one counts 1 where there is nothing to find, else 0.
    """

    all_frames: Mean
    present: Mean
    found: Mean
    accepted: Mean
    end_to_end: Mean


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """Frames as a segmenter left them, all ``(n,)``.

    Attributes:
        dice: Of its masks against the consensus.
        has_mask: Whether its mask holds a pixel.
        present: Whether the organ is there.
        has_consensus: Whether the consensus holds a pixel, which a present organ may lack; ``present`` when None.
    """

    dice: Floats
    has_mask: Flags
    present: Flags
    has_consensus: Flags | None = None


def dice_means(frames: Segmented, accepted: Flags | None = None) -> DiceMeans:
    """Average Dice over frames by each convention.

    Args:
        frames: The segmenter's frames.
        accepted: ``(n,)`` whether the frame passes the gate; all do when None.
    """
    dice, present = frames.dice, frames.present
    passed = np.ones(len(dice), bool) if accepted is None else accepted
    to_find = present if frames.has_consensus is None else present & frames.has_consensus
    return DiceMeans(
        all_frames=mean_of(dice),
        present=mean_of(dice[present]),
        found=mean_of(dice[present & frames.has_mask]),
        accepted=mean_of(dice[passed]),
        end_to_end=mean_of(np.where(passed, dice, ~to_find)),
    )


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of two measurements of the same frames, in their unit; NaN of too few.

    Attributes:
        bias: Mean difference.
        low: Lower limit of agreement: the bias less 1.96 standard deviations (of n - 1) of the differences.
        high: Upper limit.
        count: Number of frames.
    """

    bias: float
    low: float
    high: float
    count: int


def agreement(measured: Floats, reference: Floats) -> Agreement:
    """Compare measurements ``(n,)`` with a reference ``(n,)`` as Bland and Altman do (Lancet 1986; 327: 307).

    The limits are of frames: those of one subject are alike, and new subjects may lie further apart.
    """
    found = mean_of(measured - reference)
    reach = _LIMITS * found.spread
    return Agreement(bias=found.mean, low=found.mean - reach, high=found.mean + reach, count=found.count)


def mean_of(values: Floats) -> Mean:
    """Compute mean, spread and number of values ``(n,)``."""
    count = len(values)
    return Mean(
        mean=float(values.mean()) if count else float("nan"),
        spread=float(values.std(ddof=1)) if count > 1 else float("nan"),
        count=count,
    )


def by_subject(values: Floats, subjects: Sequence[str]) -> NDArray[np.float64]:
    """Average values ``(n,)`` of each subject ``(subjects,)``, in the order of their names; NaN values are left out."""
    named = np.asarray(subjects, dtype=str)
    means = [mean_of(own[~np.isnan(own)]).mean for own in (values[named == each] for each in np.unique(named))]
    return np.array(means, np.float64)


def interval_over_subjects(
    values: Floats, *, coverage: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Compute a percentile bootstrap interval of the mean over subjects ``(n,)``.

    Not over frames: those of a subject are not independent.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(known), size=(samples, len(known)))
    low, high = np.quantile(known[drawn].mean(axis=1), [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)
