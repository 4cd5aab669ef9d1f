"""Which detections of a teacher become labels."""

from torch import Tensor

from vision_core.detection.model.detector import Found, Targets


def select_confident(scores: Tensor, threshold: float) -> Tensor:
    """Indices of ``scores`` ``(N,)`` that are strictly greater than ``threshold``, in order."""
    return (scores > threshold).nonzero().squeeze(1)


def confident_targets(found: Found, threshold: float) -> Targets:
    """The detections with a score strictly greater than ``threshold``, as boxes to learn."""
    keep = select_confident(found.scores, threshold)
    return Targets(boxes=found.boxes[keep], labels=found.labels[keep])
