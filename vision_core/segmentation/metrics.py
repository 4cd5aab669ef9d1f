"""Metrics of masks: overlap and distances of surfaces by MONAI, area and diameters."""

import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vision_core.optional import require

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]

_WHY = "masks are compared by its metrics"
_ANGLES = np.deg2rad(np.arange(180))
_EDGES = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])  # middles of a pixel's sides


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """Overlap of masks with the truth, each ``(N,)``.

    Attributes:
        dice: 1 where both masks are empty, 0 where one is.
        precision: NaN where nothing is predicted.
        recall: NaN where there is nothing to find.
    """

    dice: Floats
    precision: Floats
    recall: Floats


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distances between the boundaries of two masks, in the unit of the spacing.

    All are infinite where one mask is empty, and NaN where both are: leave them out of a mean, and count them.

    Attributes:
        hausdorff: The largest distance from either boundary to the other.
        hausdorff_95: The larger of both 95th percentiles.
        mean: Mean over the pixels of both boundaries.
    """

    hausdorff: float
    hausdorff_95: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a region in the unit of the spacing; zeros for an empty mask.

    Attributes:
        area: Area, in the unit squared.
        longest: Longest diameter.
        across: Width at right angles to it.
    """

    area: float
    longest: float
    across: float


def overlaps(predicted: Masks, truth: Masks) -> Overlaps:
    """Compare masks ``(N, H, W)`` pixel by pixel, each with its own truth."""
    metrics = require("monai.metrics", _WHY)
    counts = metrics.get_confusion_matrix(_batch(predicted), _batch(truth))[:, 0].numpy().astype(np.float64)
    true, false, _, missed = counts.T  # monai: true and false positives, true and false negatives
    with np.errstate(invalid="ignore"):
        dice = 2 * true / (2 * true + false + missed)
        precision, recall = true / (true + false), true / (true + missed)
    return Overlaps(dice=np.where(np.isnan(dice), 1.0, dice), precision=precision, recall=recall)


def surface_distances(predicted: Masks, truth: Masks, spacing: tuple[float, float] = (1.0, 1.0)) -> SurfaceDistances:
    """Measure the distances between the boundaries of two masks ``(H, W)``.

    Args:
        predicted: The mask.
        truth: What it is compared with.
        spacing: Height and width of a pixel.
    """
    if not (predicted.any() and truth.any()):
        undefined = np.inf if predicted.any() or truth.any() else np.nan
        return SurfaceDistances(hausdorff=undefined, hausdorff_95=undefined, mean=undefined)
    metrics = require("monai.metrics", _WHY)
    both = {"y_pred": _batch(predicted[None]), "y": _batch(truth[None]), "include_background": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of arguments that MONAI passes to itself
        return _distances(metrics, both, spacing)


def average_precision(labels: NDArray[np.integer], scores: Floats) -> float:
    """Compute the average precision of scores ``(n,)`` against labels ``(n,)`` of 0 and 1; NaN where one is absent."""
    if len(np.unique(labels)) < 2 or np.isnan(scores).any():
        return float("nan")
    metrics = require("monai.metrics", _WHY)
    return float(metrics.compute_average_precision(torch.as_tensor(scores), torch.as_tensor(labels)))


def size_of(mask: Masks, spacing: tuple[float, float] = (1.0, 1.0)) -> Size:
    """Measure the region of a mask ``(H, W)``: area, longest diameter, and width across.

    Diameters are those of calipers turned by whole degrees around the middles of the sides of its pixels.

    Args:
        mask: The region; one component.
        spacing: Height and width of a pixel.
    """
    if not mask.any():
        return Size(area=0.0, longest=0.0, across=0.0)
    pixels = np.argwhere(boundary(mask))
    points = (pixels[:, None] + _EDGES).reshape(-1, 2) * spacing  # (4 n, 2)
    along = points @ np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])  # (4 n, 180)
    diameters = np.ptp(along, axis=0)
    longest = int(diameters.argmax())
    return Size(
        area=float(mask.sum()) * spacing[0] * spacing[1],
        longest=float(diameters[longest]),
        across=float(diameters[(longest + 90) % 180]),
    )


def boundary(mask: Masks) -> Masks:
    """Mark the pixels of a mask ``(H, W)`` with a neighbour in row or column that is outside it or the image."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inside)


def _distances(metrics: ModuleType, both: dict[str, Any], spacing: tuple[float, float]) -> SurfaceDistances:
    return SurfaceDistances(
        hausdorff=float(metrics.compute_hausdorff_distance(**both, spacing=spacing)),
        hausdorff_95=float(metrics.compute_hausdorff_distance(**both, spacing=spacing, percentile=95)),
        mean=float(metrics.compute_average_surface_distance(**both, spacing=spacing, symmetric=True)),
    )


def _batch(masks: Masks) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(masks, np.uint8))[:, None].float()  # (N, 1, H, W)
