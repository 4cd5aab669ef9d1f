"""Statistics of the ultrasound study: ways to call a frame, empty frames reweighted, intervals over subjects."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.ultrasound.cells import Flags, Floats, Found, SegmentedList, Truth
from pipelines.ultrasound.evaluation.scores import by_subject
from pipelines.ultrasound.screening.gate import accepted
from pipelines.ultrasound.screening.presence_rule import PresenceRule, tuned_rule
from pipelines.ultrasound.screening.threshold import cheapest, curve, risk_controlled

RESAMPLES = 2000
_COVERAGE = 0.95
_ROUNDING = 1e-9

Scores = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Called:
    """Frames of a list, called by the organ's presence, ``(n,)``.

    Attributes:
        truth: What the observers say.
        found: What the segmenter makes of them.
        passed: Whether the segmenter's answer is kept; the mask of the others is emptied.
    """

    truth: Truth
    found: SegmentedList
    passed: Flags

    @property
    def positive(self) -> Flags:
        """Return which frames have a mask in the end."""
        return np.asarray(self.passed & (self.found.areas > 0))

    @property
    def end_to_end(self) -> Floats:
        """Return Dice against the consensus; a frame whose mask was emptied has 1 where there is nothing to find."""
        return np.where(self.passed, self.found.dice, ~self.truth.to_find)

    def counts(self) -> Floats:
        """Count the frames of each subject ``(subjects, 4)``: found, false, missed, rightly empty."""
        kinds = [
            each & which
            for each in (self.positive, ~self.positive)
            for which in (self.truth.present, ~self.truth.present)
        ]
        named = np.asarray(self.truth.subjects)
        sums = [[kind[named == subject].sum() for kind in kinds] for subject in np.unique(named)]
        return np.array(sums, np.float64)

    def shares(self, values: Floats | Flags) -> Floats:
        """Average values of frames ``(n,)`` over empty and over present frames of each subject: ``(2, subjects)``."""
        kinds = (~self.truth.present, self.truth.present)
        return np.stack([by_subject(np.where(kind, values, np.nan), self.truth.subjects) for kind in kinds])


@dataclass(frozen=True, kw_only=True)
class Presence:
    """The three ways to call a frame, as a segmenter and the screen of its seed have set them on the list val.

    Attributes:
        rule: On area and probability of the mask.
        threshold: Of the screen, for the gate.
    """

    rule: PresenceRule
    threshold: float

    def call(self, way: str, truth: Truth, found: SegmentedList, scores: Scores) -> Called:
        """Call the frames of a list: ``alone``, by ``rule`` or ``gate``."""
        passed = np.ones(len(truth.present), bool)
        if way == "rule":
            passed = self.rule.decide(found.areas, found.confidence)
        elif way == "gate":
            passed = accepted(scores, self.threshold)
        return Called(truth=truth, found=found, passed=passed)


def by_cost(found: Found, row: tuple[str, str], seed: int) -> Presence:
    """Set rule and threshold to the least cost on the list val, both errors alike; thresholds are of ``GRID``."""
    truth, own, scores = found.truth["val"], found.segmented[row][seed]["val"], found.scores[seed]["val"]
    return Presence(
        rule=tuned_rule(own.areas, own.confidence, truth.present),
        threshold=cheapest(curve(scores, own.segmented(truth))).threshold,
    )


def by_recall(found: Found, row: tuple[str, str], seed: int, recall: float) -> Presence:
    """Set rule and threshold to a recall on the list val; see ``gate_at`` and ``rule_at``."""
    truth, own, scores = found.truth["val"], found.segmented[row][seed]["val"], found.scores[seed]["val"]
    return Presence(
        rule=rule_at(own, truth.present, recall), threshold=gate_at(scores, own.areas > 0, truth.present, recall)
    )


def gate_at(scores: Scores, has_mask: Flags, present: Flags, recall: float) -> float:
    """Find the highest threshold that keeps a recall; 0, which accepts all, where the masks alone have less."""
    least = _least_kept(scores, has_mask, present, recall)
    return (
        0.0
        if math.isnan(least)
        else float(np.nextafter(np.asarray(least, scores.dtype), np.array(-np.inf, scores.dtype)))
    )


def rule_at(own: SegmentedList, present: Flags, recall: float) -> PresenceRule:
    """Find the rule of fewest false masks that keeps a recall, of equal ones the one that rejects least.

    All areas are tried, with the highest probability that each allows; a rule of 0 where the masks alone have less.
    """
    rules = []
    for area in np.unique(own.areas[own.areas > 0]):
        least = _least_kept(own.confidence, own.areas >= area, present, recall)
        if not math.isnan(least):
            rules.append(PresenceRule(least_area=float(area), least_probability=least))

    def false_masks(rule: PresenceRule) -> tuple[int, float]:
        return int((rule.decide(own.areas, own.confidence) & ~present).sum()), rule.least_area

    return min(rules, key=false_masks, default=PresenceRule(least_area=0.0, least_probability=0.0))


def controlled(found: Found, seed: int, alpha: float) -> float:
    """Find the threshold of a screen by control of missed frames on the list calibration."""
    truth, scores = found.truth["calibration"], found.scores[seed]["calibration"]
    return risk_controlled(scores, truth.present, truth.subjects, alpha).threshold


def missed_shares(found: Found, seed: int, threshold: float, name: str) -> Floats:
    """Share ``(subjects,)`` of present frames that the screen rejects."""
    truth, scores = found.truth[name], found.scores[seed][name]
    missed = np.where(truth.present, ~accepted(scores, threshold), np.nan)
    return by_subject(missed, truth.subjects)


def weighted(empty_and_present: Floats, empty_share: float) -> Floats:
    """Weigh the means ``(2, subjects)`` of ``Called.shares`` as if so many of the frames were empty."""
    return np.asarray(empty_share * empty_and_present[0] + (1 - empty_share) * empty_and_present[1])


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with the 95 % percentile interval of a bootstrap over subjects."""

    value: float
    low: float
    high: float


def estimate(parts: Floats, statistic: Callable[[Floats], Floats]) -> Estimate:
    """Compute a statistic of sums over subjects, with its interval.

    Args:
        parts: ``(subjects, ...)``, what is summed.
        statistic: From sums ``(draws, ...)`` to values ``(draws,)``.
    """
    with np.errstate(invalid="ignore"):
        return _with_interval(statistic(np.tensordot(_draws(len(parts)), parts, axes=1)))


def mean(values: Floats) -> Estimate:
    """Average values ``(subjects,)``; subjects without one are left out."""
    known = ~np.isnan(values)
    return estimate(np.stack([np.nan_to_num(values), known], axis=1), lambda sums: sums[:, 0] / sums[:, 1])


def area_under_curve(found: Found, seeds: list[int], name: str) -> Estimate:
    """Compute the area under the ROC curve of the screens, mean over seeds; subjects are drawn whole."""
    truth = found.truth[name]
    named = np.asarray(truth.subjects)
    members = np.array([named == each for each in np.unique(named)], np.float64)  # (subjects, n)
    draws = _draws(len(members))
    values = np.zeros(len(draws))
    for seed in seeds:
        scores = found.scores[seed][name]
        apart = scores[truth.present][:, None] - scores[~truth.present]
        won = members[:, truth.present] @ ((apart > 0) + 0.5 * (apart == 0)) @ members[:, ~truth.present].T
        pairs = (draws @ members[:, truth.present].sum(axis=1)) * (draws @ members[:, ~truth.present].sum(axis=1))
        values += np.einsum("ds,st,dt->d", draws, won, draws) / pairs / len(seeds)
    return _with_interval(values)


def calibration_error(sums: Floats) -> Floats:
    """Compute the calibration error of sums ``(..., 3, bins)``: the mean over pixels of a bin's deviation."""
    pixels, probability, share = np.moveaxis(sums, -2, 0)
    return np.asarray(np.abs(probability - share).sum(axis=-1) / pixels.sum(axis=-1))


@lru_cache(4)
def _draws(subjects: int) -> Floats:
    """Draw how often each subject is taken ``(1 + resamples, subjects)``; the first row is the list as it is."""
    drawn = np.random.default_rng(0).integers(subjects, size=(RESAMPLES, subjects))
    often = (drawn[:, :, None] == np.arange(subjects)).sum(axis=1)
    return np.concatenate([np.ones((1, subjects)), often])


def _with_interval(values: Floats) -> Estimate:
    known = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(known, [(1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2]) if len(known) else (np.nan, np.nan)
    return Estimate(value=float(values[0]), low=float(low), high=float(high))


def _least_kept(values: Scores, kept: Flags, present: Flags, recall: float) -> float:
    """Find the highest value such that frames with it or more, among those kept, have a recall; NaN if none does."""
    needed = math.ceil(recall * present.sum() - _ROUNDING)
    own = np.sort(values[kept & present])[::-1]
    return float(own[needed - 1]) if 0 < needed <= len(own) else float("nan")
