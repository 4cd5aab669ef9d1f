"""The verdict: did adaptation help, as far as numbers without labels can say?

A linear rule maps the differences of the six numbers, adapted minus source, to the gain in AP50. It is fitted on
corruptions of the source's own validation images, whose labels may be read, and never on the data it is asked about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.sfod.verdict.numbers import (
    NUMBERS,
    Source,
    boxes_per_image,
    compute_numbers,
    share_divergence,
)
from pipelines.sfod.verdict.probing import Probe
from vision_core.randomness import key

Floats = NDArray[np.float64]
Kind = Literal["helped", "unclear", "harmful"]
_DRAWS = 1000
_LEVEL = 0.9
_NORMAL = 1.6449  # of the two-sided interval of that level
_PENALTIES = np.logspace(-3, 3, 13)
_FEWEST_NOT_LOWER = 4
_BOXES = (1 / 3, 3.0)
_SHARES = 0.3


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Linear map from differences of the numbers to a gain in AP50, without an intercept: no difference, no gain.

    Attributes:
        coefficients: ``(6,)`` points of AP50, 0 to 1, for each unit of each of ``NUMBERS``.
        spread: Standard deviation of what the rule misses on a corruption it was not fitted on.
        penalty: Of the ridge, on differences divided by their root mean square.
    """

    coefficients: Floats
    spread: float
    penalty: float

    def __call__(self, differences: Floats) -> Floats:
        """Predict the gain of ``(..., 6)`` differences."""
        return np.asarray(differences @ self.coefficients)

    def to_record(self) -> dict[str, Any]:
        """Convert to a JSON-ready record."""
        coefficients = dict(zip(NUMBERS, self.coefficients.tolist(), strict=True))
        return {"coefficients": coefficients, "spread": self.spread, "penalty": self.penalty}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Rule":
        """Restore a rule from its record."""
        coefficients = np.array([record["coefficients"][name] for name in NUMBERS], np.float64)
        return cls(coefficients=coefficients, spread=float(record["spread"]), penalty=float(record["penalty"]))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What can be said of an adapted detector without labels.

    Attributes:
        kind: ``helped``, ``unclear`` or ``harmful``.
        gain: Predicted gain in AP50, 0 to 1; None without a rule, or where a number is not known.
        interval: Of the gain, 90 %: paired bootstrap over images, widened by what the rule misses.
        reasons: In words, why it is not ``helped``; or why it is.
        before: The numbers of the source, None where not known.
        after: Those of the adapted detector.
        boxes: Boxes an image of both.
    """

    kind: Kind
    gain: float | None
    interval: tuple[float, float] | None
    reasons: tuple[str, ...]
    before: dict[str, float | None]
    after: dict[str, float | None]
    boxes: tuple[float, float]


def fit_rule(differences: Floats, gains: Floats, groups: Sequence[str]) -> Rule:
    """Fit the rule; the penalty is the one that misses least on the group that was left out.

    Args:
        differences: ``(M, 6)`` of ``NUMBERS``; rows with a number that is not known do not count.
        gains: ``(M,)`` in AP50, 0 to 1.
        groups: ``(M,)`` name of the corruption of each row.

    Raises:
        ValueError: Fewer than two groups have a row.
    """
    known = np.isfinite(differences).all(axis=1)
    differences, gains, names = differences[known], gains[known], np.asarray(groups)[known]
    if len(set(names)) < 2:
        raise ValueError("The rule is judged on a corruption that it was not fitted on: give at least two.")
    misses = {penalty: left_out_errors(differences, gains, names, penalty) for penalty in _PENALTIES.tolist()}
    penalty = min(misses, key=lambda each: float(np.mean(misses[each] ** 2)))
    return Rule(
        coefficients=_ridge(differences, gains, penalty),
        spread=float(np.sqrt(np.mean(misses[penalty] ** 2))),
        penalty=penalty,
    )


def judge(
    before: Sequence[Probe],
    after: Sequence[Probe],
    source: Source,
    rule: Rule | None,
    seed: int = 0,
) -> Verdict:
    """Compare an adapted detector with its source on the same images.

    Args:
        before: Probes of the source.
        after: Probes of the adapted detector, in the same order.
        source: What is known of it; without a truth map and prototypes nothing is called ``helped``.
        rule: The fitted rule; None likewise.
        seed: Of the bootstrap.
    """
    numbers = [compute_numbers(probes, source) for probes in (before, after)]
    counts = [boxes_per_image(probes) for probes in (before, after)]
    first, second = ({name: _known(values[0]) for name, values in each.items()} for each in numbers)
    boxes = float(counts[0].sum()), float(counts[1].sum())
    vetoes = signs_of_harm(counts, (first["geometry"], second["geometry"]), source.noise_floor)
    if boxes[1] > _BOXES[1] * boxes[0]:
        vetoes.insert(0, f"Boxes an image rose from {boxes[0]:.2f} to {boxes[1]:.2f}, above three times.")
    verdict = Verdict(
        kind="harmful" if vetoes else "unclear",
        gain=None,
        interval=None,
        reasons=tuple(vetoes),
        before=first,
        after=second,
        boxes=boxes,
    )
    differences = np.array([numbers[1][name][0] - numbers[0][name][0] for name in NUMBERS])
    if rule is None or not np.isfinite(differences).all():
        lacking = [name for name, value in zip(NUMBERS, differences, strict=True) if not np.isfinite(value)]
        why = f"not known: {', '.join(lacking)}" if rule else "there is no fitted rule"
        return replace(verdict, reasons=(*vetoes, f"No gain is predicted: {why}."))
    gain = float(rule(differences))
    low, high = predicted_interval(before, after, source, rule, seed)
    kind, reasons = _kind(differences, (low, high), vetoes)
    return replace(verdict, kind=kind, gain=gain, interval=(low, high), reasons=reasons)


def predicted_interval(
    before: Sequence[Probe],
    after: Sequence[Probe],
    source: Source,
    rule: Rule,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the 90 % interval of the predicted gain: images drawn in pairs, widened by what the rule misses."""
    gains = predicted_gains(before, after, source, rule, seed)
    low, middle, high = np.nanpercentile(gains, (50 - 50 * _LEVEL, 50, 50 + 50 * _LEVEL))
    missed = _NORMAL * rule.spread
    return float(middle - np.hypot(middle - low, missed)), float(middle + np.hypot(high - middle, missed))


def predicted_gains(
    before: Sequence[Probe],
    after: Sequence[Probe],
    source: Source,
    rule: Rule,
    seed: int = 0,
) -> Floats:
    """Predict the gain in each of 1000 draws of the images: ``(1000,)``."""
    count = len(before)
    draws = np.random.default_rng(key("verdict", seed)).multinomial(count, np.full(count, 1 / count), _DRAWS)
    drawn = [compute_numbers(probes, source, draws.astype(np.float64)) for probes in (before, after)]
    return rule(np.stack([drawn[1][name] - drawn[0][name] for name in NUMBERS], axis=1))


def signs_of_harm(counts: Sequence[Floats], agreement: Sequence[float | None], noise_floor: float | None) -> list[str]:
    """Say what speaks against an adapted detector, whatever gain is predicted; empty if nothing does.

    Args:
        counts: Boxes an image by class, ``(C,)``, of the source and of the adapted detector.
        agreement: Of the boxes of each with those of the mirrored or rescaled image; None where not known.
        noise_floor: How far it may fall; None: it is not judged.
    """
    before, after = (float(each.sum()) for each in counts)
    signs = []
    if after < _BOXES[0] * before:
        signs.append(f"Boxes an image fell from {before:.2f} to {after:.2f}, below a third.")
    if (shares := share_divergence(*counts)) > _SHARES:
        signs.append(f"The shares of the classes moved: Jensen–Shannon divergence {shares:.2f}, above {_SHARES:g}.")
    first, second = agreement
    if noise_floor is not None and first is not None and second is not None and first - second > noise_floor:
        signs.append(
            f"Boxes agree less with those of the mirrored and rescaled image: {first:.2f} before, {second:.2f} after."
        )
    return signs


def choose(gains: Sequence[Floats]) -> int:
    """Choose among checkpoints: the earliest within one standard error of the best prediction.

    Args:
        gains: Draws ``(B,)`` of the predicted gain of each, in order; the first is the source, whose gain is 0.

    Returns:
        Place of the chosen one.
    """
    means = [float(np.nanmean(each)) if np.isfinite(each).any() else -np.inf for each in gains]
    best = int(np.argmax(means))
    least = means[best] - float(np.nanstd(gains[best]))
    return next(place for place, mean in enumerate(means) if mean >= least)


def left_out_errors(differences: Floats, gains: Floats, groups: NDArray[np.str_], penalty: float) -> Floats:
    """Compute what a ridge misses on each row when its group is left out.

    Args:
        differences: ``(M, K)`` of some numbers, all known.
        gains: ``(M,)``.
        groups: ``(M,)``, two at least.
        penalty: Of the ridge.

    Returns:
        ``(M,)`` prediction minus gain.
    """
    missed = np.empty(len(gains))
    for name in np.unique(groups):
        out = groups == name
        missed[out] = differences[out] @ _ridge(differences[~out], gains[~out], penalty) - gains[out]
    return missed


def _kind(differences: Floats, interval: tuple[float, float], vetoes: Sequence[str]) -> tuple[Kind, tuple[str, ...]]:
    low, high = interval
    not_lower = int((differences >= 0).sum())
    told = f"predicted gain {100 * low:+.1f} to {100 * high:+.1f} AP50"
    if vetoes or high < 0:
        return "harmful", (*vetoes, *((f"{told}.",) if high < 0 else ()))
    if low > 0 and not_lower >= _FEWEST_NOT_LOWER:
        return "helped", (f"{told}; {not_lower} of {len(NUMBERS)} numbers are not lower.",)
    return "unclear", (f"{told}; {not_lower} of {len(NUMBERS)} numbers are not lower.",)


def _ridge(differences: Floats, gains: Floats, penalty: float) -> Floats:
    scales = np.sqrt((differences**2).mean(axis=0))
    scales[scales == 0] = 1
    scaled = differences / scales
    return np.asarray(np.linalg.solve(scaled.T @ scaled + penalty * np.eye(scaled.shape[1]), scaled.T @ gains) / scales)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
