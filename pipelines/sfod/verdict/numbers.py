"""The six numbers without labels, of a list of images or of many draws from it.

All rise with a better detector. Confidence and entropy, which self-training moves by itself, also while it collapses,
are baselines to compare with and take no part in a verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.sfod.verdict.probing import Glance, Probe
from pipelines.sfod.verdict.prototypes import distance_ratio
from pipelines.sfod.verdict.truth_map import TruthMap

Floats = NDArray[np.float64]
NUMBERS = ("stability", "geometry", "flatness", "distance_ratio", "consistency", "expected_f1")
BASELINES = ("confidence", "entropy")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known of the source detector, with which adapted ones are compared.

    Attributes:
        operating_score: Detections from this score on count as boxes, of both detectors.
        truth_map: Chance of a detection to be right, on the source's own images; None if the bundle holds none.
        prototypes: ``(C + 1, D)`` mean features by class there, background last; None alike.
        known: ``(C + 1,)`` whether a class has any.
        noise_floor: Difference in geometric consistency of sources that were trained alike; None: not known.
    """

    operating_score: float
    truth_map: TruthMap | None = None
    prototypes: Floats | None = None
    known: NDArray[np.bool_] | None = None
    noise_floor: float | None = None


def compute_numbers(probes: Sequence[Probe], source: Source, weights: Floats | None = None) -> dict[str, Floats]:
    """Compute the numbers and baselines.

    Args:
        probes: One per image, N.
        source: Without prototypes ``distance_ratio`` is NaN, without a truth map ``expected_f1``.
        weights: ``(B, N)``, how often each image stands in each of B draws; None: once, in one draw.

    Returns:
        ``(B,)`` by name. ``flatness`` is agreement times exp(−mean divergence). NaN where nothing can be said, such as
        of a detector that finds nothing.
    """
    weights = np.ones((1, len(probes))) if weights is None else weights
    ratios = {name: _ratio(probes, name, weights) for name in ("stability", "geometry", "consistency", *BASELINES)}
    return ratios | {
        "flatness": _ratio(probes, "flatness", weights) * np.exp(-_ratio(probes, "divergence", weights)),
        "distance_ratio": _distances(probes, source, weights),
        "expected_f1": _expected_f1(probes, source, weights),
    }


def boxes_per_image(probes: Sequence[Glance]) -> Floats:
    """Compute mean detections from the operating score on by class, ``(C,)``."""
    return np.asarray(np.mean([each.counts for each in probes], axis=0))


def mirror_agreement(glances: Sequence[Glance]) -> float | None:
    """Compute the agreement of the boxes of all images with those of the mirrored ones; None without any box."""
    above, below = np.sum([each.mirror for each in glances], axis=0)
    return float(above / below) if below > 0 else None


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


def _ratio(probes: Sequence[Probe], name: str, weights: Floats) -> Floats:
    above, below = (weights @ np.stack([getattr(each, name) for each in probes])).T
    return _divide(above, below)


def _distances(probes: Sequence[Probe], source: Source, weights: Floats) -> Floats:
    if source.prototypes is None or source.known is None:
        return np.full(len(weights), np.nan)
    sums = np.tensordot(weights, np.stack([each.feature_sums for each in probes]), axes=1)
    counts = weights @ np.stack([each.feature_counts for each in probes])
    return distance_ratio(sums, counts, source.prototypes, source.known)


def _expected_f1(probes: Sequence[Probe], source: Source, weights: Floats) -> Floats:
    """Expected right boxes against kept boxes and all objects, where all that is found at any score stands for these.

    Objects that have no detection at all are not seen, so that the number is too high; it is compared, not believed.
    """
    if source.truth_map is None:
        return np.full(len(weights), np.nan)
    sums = []
    for each in probes:
        chances = source.truth_map(each.scores, each.stabilities)
        kept = each.scores >= source.operating_score
        sums.append([2 * chances[kept].sum(), kept.sum() + chances.sum()])
    above, below = (weights @ np.array(sums)).T
    return _divide(above, below)


def _divide(above: Floats, below: Floats) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    quotient: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return quotient
