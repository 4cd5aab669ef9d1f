"""Band between contours: where observers, or a model's probabilities, leave open on which side a pixel lies.

A band is worth its coverage at its width: a wide one covers every contour.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.observers import vote
from vision_core.segmentation.metrics import boundary

Floats = NDArray[np.floating]
Masks = NDArray[np.bool_]
LEVEL = 0.1  # a model's band lies where its probability is between this and 1 minus this


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Bands of frames, all ``(n,)`` or, of one frame, numbers; NaN where there is nothing to compare.

    Attributes:
        coverage: Mean over the observers of the share of their contour that lies in the model's band.
        width: Pixels of that band for each pixel of the consensus' contour.
        observers_coverage: The same of each observer's contour in the band of the others.
        observers_width: Its width, the mean over the observers.
    """

    coverage: NDArray[np.float64]
    width: NDArray[np.float64]
    observers_coverage: NDArray[np.float64]
    observers_width: NDArray[np.float64]


def band(shares: Floats, level: float = 0.0) -> Masks:
    """Mark the band between the contours of what may be the organ and of what surely is, both included.

    Args:
        shares: ``(H, W)`` share of the observers that mark a pixel, or a probability.
        level: Above it a pixel may be the organ; from 1 minus it, it surely is.
    """
    sure = shares >= 1 - level
    return np.asarray((shares > level) & ~(sure & ~boundary(sure)))


def coverage(found: Masks, mask: Masks) -> float:
    """Compute the share of the contour of a mask ``(H, W)`` that lies in a band; NaN for an empty mask."""
    contour = boundary(mask)
    return float(found[contour].mean()) if contour.any() else float("nan")


def width(found: Masks, mask: Masks) -> float:
    """Compute the pixels of a band for each pixel of the contour of a mask ``(H, W)``; NaN for an empty mask."""
    length = int(boundary(mask).sum())
    return float(found.sum()) / length if length else float("nan")


def compare_bands(probability: Floats | None, masks: Masks) -> dict[str, float]:
    """Compare the bands of one frame with its observers, as the numbers of ``Bands``.

    Args:
        probability: ``(H, W)`` of a model; None where it is not known.
        masks: ``(k, H, W)`` of the observers; the band of the others needs two or more.
    """
    consensus = vote(masks)
    own = None if probability is None else band(probability, LEVEL)
    held_out = []
    if len(masks) > 1:
        for number, mask in enumerate(masks):
            others = band(np.delete(masks, number, axis=0).mean(axis=0))
            held_out.append((coverage(others, mask), width(others, consensus)))
    covered, widths = zip(*held_out, strict=True) if held_out else ((), ())
    return {
        "coverage": _mean([] if own is None else [coverage(own, mask) for mask in masks]),
        "width": float("nan") if own is None else width(own, consensus),
        "observers_coverage": _mean(covered),
        "observers_width": _mean(widths),
    }


def _mean(values: "tuple[float, ...] | list[float]") -> float:
    known = [each for each in values if not np.isnan(each)]
    return float(np.mean(known)) if known else float("nan")
