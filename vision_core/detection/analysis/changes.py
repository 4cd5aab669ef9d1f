"""What an adaptation changed: objects gained, lost, moved and unchanged, matched box by box."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vision_core.detection.boxes import pairwise_iou
from vision_core.results import Detections

_SAME_OBJECT = 0.5  # IoU from which two boxes are of one object, the usual threshold of detection
_SAME_BOX = 0.8  # IoU from which they are one box for the eye
WORDS = {"gained": "found now", "lost": "no longer found", "moved": "moved", "same": "as before"}
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Boxes of two models, sorted by what became of them.

    Attributes:
        gained: Boxes of the adapted model without a partner.
        lost: Boxes of the source model without a partner.
        moved: Boxes of the adapted model whose partner lies elsewhere: IoU below 0.8.
        same: Boxes of the adapted model whose partner is where they are.
    """

    gained: Indices
    lost: Indices
    moved: Indices
    same: Indices


def find_changes(source: Detections, adapted: Detections) -> Changes:
    """Match boxes of one class from an IoU of 0.5 on, the best pair first."""
    overlaps = _ious(source, adapted)
    partners = np.full(len(adapted), np.nan)
    is_free = np.ones(len(source), bool)
    for place in np.argsort(-overlaps, axis=None, kind="stable"):
        before, after = np.unravel_index(place, overlaps.shape)
        if overlaps[before, after] < _SAME_OBJECT:
            break
        if is_free[before] and np.isnan(partners[after]):
            is_free[before], partners[after] = False, overlaps[before, after]
    return Changes(
        gained=np.flatnonzero(np.isnan(partners)),
        lost=np.flatnonzero(is_free),
        moved=np.flatnonzero(partners < _SAME_BOX),
        same=np.flatnonzero(partners >= _SAME_BOX),
    )


def _ious(source: Detections, adapted: Detections) -> NDArray[np.float64]:
    """Compute IoUs ``(S, A)`` of boxes of one class; 0 between classes."""
    shared = pairwise_iou(*(torch.from_numpy(found.boxes.astype(np.float64)) for found in (source, adapted))).numpy()
    names = [np.array([found.classes[label] for label in found.labels], object) for found in (source, adapted)]
    return np.asarray(np.where(names[0][:, None] == names[1][None], shared, 0.0), np.float64)
