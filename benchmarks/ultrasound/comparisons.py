"""Comparisons of the ultrasound study: of all seeds together, by subject. All frames are synthetic."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from benchmarks.ultrasound.cells import PROTOCOL, STUDY, Floats, Found, read_found
from benchmarks.ultrasound.statistics import (
    Called,
    Estimate,
    Presence,
    by_cost,
    by_recall,
    calibration_error,
    controlled,
    estimate,
    mean,
    missed_shares,
    weighted,
)
from pipelines.ultrasound.evaluation.scores import by_subject

Row = tuple[str, str]

ALPHA = 0.1
CONVENTIONS: dict[str, Callable[[Called], Floats]] = {
    "all": lambda each: each.found.dice,
    "present": lambda each: np.where(each.truth.present, each.found.dice, np.nan),
    "found": lambda each: np.where(each.truth.present & (each.found.areas > 0), each.found.dice, np.nan),
    "accepted": lambda each: np.where(each.passed, each.found.dice, np.nan),
    "end to end": lambda each: each.end_to_end,
}


@lru_cache(1)
def results() -> Found:
    """Read all results, once."""
    return read_found(STUDY.rows())


def rows() -> list[Row]:
    """List the segmenters of the protocol of which there are results."""
    segmenters = PROTOCOL["segmenters"].items()
    named = [(group, label) for group, settings in segmenters for label in settings["labels"]]
    return [row for row in named if results().seeds(*row)]


@lru_cache(None)
def presence(row: Row, seed: int, recall: float | None = None) -> Presence:
    """Set rule and gate of a segmenter on the list val: to a recall, or by cost."""
    return by_cost(results(), row, seed) if recall is None else by_recall(results(), row, seed, recall)


def called(row: Row, seed: int, way: str, name: str = "test", recall: float | None = None) -> Called:
    """Call the frames of a list."""
    found = results()
    own = found.segmented[row][seed][name]
    return presence(row, seed, recall).call(way, found.truth[name], own, found.scores[seed][name])


def false_difference(row: Row, empty_share: float, recall: float | None = None) -> Estimate:
    """Compute how many false masks of 100 frames the rule has more than the gate."""

    def of(seed: int) -> Floats:
        rule, gate = (positive_shares(row, way, recall, 0, seed) for way in ("rule", "gate"))
        return 100 * empty_share * (rule - gate)

    return mean(seeds_mean(results().seeds(*row), of))


def dice_difference(row: Row, empty_share: float, recall: float | None = None) -> Estimate:
    """Compute by how many points the gate has more Dice end to end than the rule."""

    def of(seed: int) -> Floats:
        rule, gate = (called(row, seed, way, recall=recall) for way in ("rule", "gate"))
        apart = gate.shares(gate.end_to_end) - rule.shares(rule.end_to_end)
        return 100 * weighted(apart, empty_share)

    return mean(seeds_mean(results().seeds(*row), of))


def calibration_difference(row: Row, other: Row) -> Estimate:
    """Compute by how many points the calibration error of a segmenter is above another's on the list test."""
    seeds = results().shared(row, other)
    both = np.stack(
        [reliability(each, seeds, "test") for each in (row, other)], axis=1
    )  # (subjects, 2, seeds, 3, bins)

    def difference(sums: Floats) -> Floats:
        errors = calibration_error(sums).mean(axis=2)
        return np.asarray(errors[:, 0] - errors[:, 1])

    return times_100(estimate(both, difference))


def outside_difference(seeds: Sequence[int]) -> Estimate:
    """Compute by how many points more frames of the other machine are told as outside; two sets of subjects."""
    other, test = (seeds_mean(seeds, partial(outside, name=name)) for name in ("other_machine", "test"))
    parts = np.zeros((len(other) + len(test), 4))
    parts[: len(other), 0], parts[: len(other), 1] = other, 1
    parts[len(other) :, 2], parts[len(other) :, 3] = test, 1
    return times_100(estimate(parts, lambda sums: sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]))


def of_counts(name: str) -> Callable[[Floats], Floats]:
    """Return the statistic of counts ``(draws, seeds, 4)``, mean over seeds."""

    def of(sums: Floats) -> Floats:
        found, false, missed, empty = np.moveaxis(sums, -1, 0)
        with np.errstate(invalid="ignore"):
            values = {
                "false": false,
                "missed": missed,
                "precision": found / (found + false),
                "recall": found / (found + missed),
                "specificity": empty / (empty + false),
                "F1": 2 * found / (2 * found + false + missed),
            }[name]
        return np.asarray(values.mean(axis=1))

    return of


def dice(row: Row, way: str, name: str, convention: str) -> Estimate:
    """Average Dice of a segmenter by a convention over the subjects of a list, in percent."""

    def of(seed: int) -> Floats:
        each = called(row, seed, way, name)
        return by_subject(CONVENTIONS[convention](each), each.truth.subjects)

    return times_100(mean(seeds_mean(results().seeds(*row), of)))


def dice_difference_of_masks(row: Row, other: Row, seed: int) -> Floats:
    """Compute how much more Dice the masks of a segmenter have than another's, over all frames of each subject."""
    truth, name = results().truth["test"], "test"
    own, less = (by_subject(results().segmented[each][seed][name].dice, truth.subjects) for each in (row, other))
    return own - less


def positive_shares(row: Row, way: str, recall: float | None, kind: int, seed: int) -> Floats:
    """Compute the share of each subject's empty (0) or present (1) frames that have a mask in the end."""
    each = called(row, seed, way, recall=recall)
    return np.asarray(each.shares(each.positive)[kind])


def missed(seed: int, name: str) -> Floats:
    """Compute the share ``(subjects,)`` of present frames that a screen rejects under control of missed frames."""
    return missed_shares(results(), seed, controlled(results(), seed, ALPHA), name)


def outside(seed: int, name: str) -> Floats:
    """Compute the share ``(subjects,)`` of frames that the guard of a screen tells as outside."""
    return by_subject(results().outside[seed][name].astype(np.float64), results().truth[name].subjects)


def reliability(row: Row, seeds: Sequence[int], name: str) -> Floats:
    """Collect the sums of pixels ``(subjects, seeds, 3, bins)``; see ``SegmentedList``."""
    parts = [results().segmented[row][seed][name].reliability for seed in seeds]
    return np.moveaxis(np.stack(parts), 2, 0)


def mean_error(sums: Floats) -> Floats:
    """Average the calibration errors ``(draws,)`` of sums ``(draws, seeds, 3, bins)``."""
    return np.asarray(calibration_error(sums).mean(axis=1))


def outlines(row: Row, seed: int) -> tuple[int, int]:
    """Count the frames of the list test where both masks hold a pixel, and where one does."""
    values = results().segmented[row][seed]["test"].surface
    return int(np.isfinite(values).sum()), int(np.isinf(values).sum())


def distance(row: Row, kind: str, seed: int) -> Floats:
    """Average a distance in mm over each subject's frames of the list test where both masks hold a pixel."""
    found = results()
    values = getattr(found.segmented[row][seed]["test"], kind)
    return by_subject(np.where(np.isfinite(values), values, np.nan), found.truth["test"].subjects)


def seeds_mean(seeds: Sequence[int], of: Callable[[int], Floats]) -> Floats:
    """Average values of subjects ``(subjects,)`` over seeds; NaN only where no seed has one."""
    values = np.stack([of(seed) for seed in seeds])
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=0) / known.sum(axis=0))


def times_100(found: Estimate) -> Estimate:
    """Turn shares into percent."""
    return Estimate(value=100 * found.value, low=100 * found.low, high=100 * found.high)
