"""A rule on the segmenter's own mask, which a gate must be better than: smallest area, smallest mean probability."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.screening.gate import count_frames

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]

_STEPS = 41  # candidates of each number: quantiles of what is found


@dataclass(frozen=True, kw_only=True)
class PresenceRule:
    """Smallest region that is taken for the organ.

    Attributes:
        least_area: In pixels; smaller regions are no organ.
        least_probability: Of its pixels on average; less is no organ.
    """

    least_area: float
    least_probability: float

    def decide(self, areas: Floats, probabilities: Floats) -> Flags:
        """Tell which frames ``(n,)`` show the organ; those without a region do not."""
        return np.asarray((areas > 0) & (areas >= self.least_area) & (probabilities >= self.least_probability))


def tuned_rule(
    areas: Floats, probabilities: Floats, present: Flags, *, false_positive: float = 1.0, false_negative: float = 1.0
) -> PresenceRule:
    """Choose the rule of least cost on validation frames, of equal ones the one that rejects least.

    Args:
        areas: ``(n,)`` area of each frame's region in pixels, 0 without one.
        probabilities: ``(n,)`` mean probability of its pixels; ignored without a region.
        present: ``(n,)`` whether the organ is there.
        false_positive: Cost of such a frame.
        false_negative: Cost of a missed frame.
    """
    found = areas > 0
    steps = np.linspace(0, 1, _STEPS)
    rules = [
        PresenceRule(least_area=float(area), least_probability=float(probability))
        for area in np.unique(np.append(0.0, np.quantile(areas[found], steps) if found.any() else []))
        for probability in np.unique(np.append(0.0, np.quantile(probabilities[found], steps) if found.any() else []))
    ]

    def cost(rule: PresenceRule) -> tuple[float, float, float]:
        counts = count_frames(rule.decide(areas, probabilities), present)
        return counts.cost(false_positive, false_negative), rule.least_area, rule.least_probability

    return min(rules, key=cost)
