"""Curves of a run: laid out for a page, smoothed, with names for people."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_POINTS = 300
_SMOOTHED_FROM = 20  # points; fewer are shown as they are
_WINDOW = 0.1  # share of the curve that a smoothed point is the mean of
_NAMES = {  # of what the loop of training logs
    "step_seconds": "Seconds a step",
    "peak_memory_mib": "Memory, MiB",
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Curve of a value over steps, in a box of 300 by 110 units.

    The origin is at the top left.

    Attributes:
        name: For people.
        points: Of the values.
        smooth: Of their running mean; empty where there are few.
        low: Least value, as text.
        high: Largest value; empty where all are equal.
        first_step: Of the first value.
        last_step: Of the last.
        words: The curve in a sentence.
    """

    name: str
    points: str
    smooth: str
    low: str
    high: str
    first_step: int
    last_step: int
    words: str


def layout_curve(name: str, points: Sequence[tuple[float, float]], names: Mapping[str, str]) -> Curve:
    """Scale ``(step, value)`` pairs to the box of a ``Curve``; long ones are binned. ``names`` as in ``name_of``."""
    steps, values = zip(*_thin(points), strict=True)
    low, high = min(values), max(values)
    title = name_of(name, names)

    def laid(heights: Sequence[float]) -> str:
        across = 300 / ((steps[-1] - steps[0]) or 1)
        up = 100 / ((high - low) or 1)
        return " ".join(
            f"{(s - steps[0]) * across:.1f},{105 - (v - low) * up:.1f}" for s, v in zip(steps, heights, strict=True)
        )

    return Curve(
        name=title,
        points=laid(values),
        smooth=laid(_smoothed(values)) if len(values) >= _SMOOTHED_FROM and high > low else "",
        low=_text(low),
        high=_text(high) if high > low else "",
        first_step=int(steps[0]),
        last_step=int(steps[-1]),
        words=f"{title}: {_text(values[0])} at step {steps[0]:.0f}, {_text(values[-1])} at step {steps[-1]:.0f}, "
        f"between {_text(low)} and {_text(high)}",
    )


def name_of(metric: str, names: Mapping[str, str]) -> str:
    """Name a metric for people, by the ``names`` of its task first; an unknown one in its own words."""
    if known := names.get(metric, _NAMES.get(metric)):
        return known
    if rate := re.fullmatch(r"lr(?:_(.+))?", metric):
        return f"Learning rate{f' of {rate[1]}' if rate[1] else ''}"
    if scored := re.fullmatch(r"eval/(.+)", metric):
        return f"Score between epochs: {scored[1]}"
    loss = re.fullmatch(r"loss_(.+)", metric)
    return f"Loss: {loss[1].replace('_', ' ')}" if loss else metric


def _text(value: float) -> str:
    """Write a value to three digits, a large one whole: memory is ``1,210``, not ``1.21e+03``."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def _smoothed(values: Sequence[float]) -> list[float]:
    """Average each value with its neighbours, as many on either side; fewer towards the ends."""
    reach = max(1, round(len(values) * _WINDOW / 2))
    return [
        statistics.fmean(values[at - min(reach, at, last) : at + min(reach, at, last) + 1])
        for at, last in ((at, len(values) - 1 - at) for at in range(len(values)))
    ]


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = math.ceil(len(points) / _POINTS)
    bins = (points[start : start + size] for start in range(0, len(points), size))
    return [(statistics.fmean(s for s, _ in part), statistics.fmean(v for _, v in part)) for part in bins]
