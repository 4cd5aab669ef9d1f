"""The six numbers without labels, of a list of images or of many draws from it.

All rise with a better detector. Confidence and entropy, which self-training moves by itself, also while it collapses,
are baselines to compare with and take no part in a verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.sfod.verdict.probing import Probe
from pipelines.sfod.verdict.prototypes import distance_ratio
from pipelines.sfod.verdict.truth_map import TruthMap

Floats = NDArray[np.float64]
NUMBERS = ("stability", "geometry", "flatness", "distance_ratio", "consistency", "expected_f1")
BASELINES = ("confidence", "entropy")


@dataclass(frozen=True, kw_only=True)
class SourceStatistics:
    """What training on labels knew of the source, for the numbers that compare with it.

    Attributes:
        truth_map: Chance of a detection to be right.
        prototypes: ``(C + 1, D)`` mean features by class, background last.
        known: ``(C + 1,)`` whether there are any.
    """

    truth_map: TruthMap
    prototypes: Floats
    known: NDArray[np.bool_]


def compute_numbers(
    probes: Sequence[Probe],
    operating_score: float,
    source: SourceStatistics | None,
    weights: Floats | None = None,
) -> dict[str, Floats]:
    """Compute the numbers and baselines.

    Args:
        probes: One per image, N.
        operating_score: From which detections count as boxes.
        source: None where the source's bundle holds nothing of the kind; then ``distance_ratio`` and ``expected_f1``
            are NaN.
        weights: ``(B, N)``, how often each image stands in each of B draws; None: once, in one draw.

    Returns:
        ``(B,)`` by name. ``flatness`` is agreement times exp(−mean divergence). NaN where nothing can be said, such as
        of a detector that finds nothing.
    """
    weights = np.ones((1, len(probes))) if weights is None else weights
    ratios = {name: _ratio(probes, name, weights) for name in ("stability", "geometry", "consistency", *BASELINES)}
    flatness = _ratio(probes, "flatness", weights) * np.exp(-_ratio(probes, "divergence", weights))
    unknown = np.full(len(weights), np.nan)
    return ratios | {
        "flatness": flatness,
        "distance_ratio": _distances(probes, source, weights) if source else unknown,
        "expected_f1": _expected_f1(probes, operating_score, source.truth_map, weights) if source else unknown,
    }


def boxes_per_image(probes: Sequence[Probe]) -> Floats:
    """Compute mean detections above the operating score by class, ``(C,)``."""
    return np.asarray(np.mean([each.boxes for each in probes], axis=0))


def share_divergence(first: Floats, second: Floats) -> float:
    """Compute the Jensen–Shannon divergence of two ``(C,)`` counts of classes, base 2: 0 for equal shares, at most 1.

    NaN where one of them counts nothing.
    """
    if not first.sum() or not second.sum():
        return float("nan")
    shares = np.stack([first / first.sum(), second / second.sum()])
    middle = shares.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(shares > 0, shares * np.log2(shares / middle), 0)
    return float(parts.sum() / 2)


def prototypes_of(probes: Sequence[Probe]) -> tuple[Floats, NDArray[np.bool_]]:
    """Compute mean features by class ``(C + 1, D)``, and which classes have any ``(C + 1,)``."""
    sums = np.sum([each.feature_sums for each in probes], axis=0)
    counts = np.sum([each.feature_counts for each in probes], axis=0)
    return sums / np.maximum(counts, 1)[:, None], counts > 0


def to_percentiles(values: Mapping[str, Floats], level: float = 0.9) -> dict[str, tuple[float, float]]:
    """Compute the central interval of the draws ``(B,)`` of each number; draws without a value do not count."""
    sides = (50 - 50 * level, 50 + 50 * level)
    intervals = {name: np.nanpercentile(draws, sides) for name, draws in values.items() if np.isfinite(draws).any()}
    return {name: (float(low), float(high)) for name, (low, high) in intervals.items()}


def _ratio(probes: Sequence[Probe], name: str, weights: Floats) -> Floats:
    above, below = (weights @ np.stack([getattr(each, name) for each in probes])).T
    return _divide(above, below)


def _distances(probes: Sequence[Probe], source: SourceStatistics, weights: Floats) -> Floats:
    sums = np.tensordot(weights, np.stack([each.feature_sums for each in probes]), axes=1)
    counts = weights @ np.stack([each.feature_counts for each in probes])
    return distance_ratio(sums, counts, source.prototypes, source.known)


def _expected_f1(probes: Sequence[Probe], operating_score: float, truth: TruthMap, weights: Floats) -> Floats:
    """Expected right boxes against kept boxes and all objects, where all that is found at any score stands for these.

    Objects that have no detection at all are not seen, so that the number is too high; it is compared, not believed.
    """
    sums = []
    for each in probes:
        chances = truth(each.scores, each.stabilities)
        kept = each.scores >= operating_score
        sums.append([2 * chances[kept].sum(), kept.sum() + chances.sum()])
    above, below = (weights @ np.array(sums)).T
    return _divide(above, below)


def _divide(above: Floats, below: Floats) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    quotient: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return quotient
