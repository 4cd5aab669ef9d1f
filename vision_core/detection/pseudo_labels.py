"""Selection of a teacher's detections as pseudo labels."""

from torch import Tensor

from vision_core.detection.model.detector import DetectionTensors, Targets


def select_confident(scores: Tensor, threshold: float) -> Tensor:
    """Return the indices of ``scores`` ``(N,)`` strictly greater than ``threshold``, ascending."""
    return (scores > threshold).nonzero().squeeze(1)


def confident_targets(detections: DetectionTensors, threshold: float) -> Targets:
    """Turn detections with a score strictly greater than ``threshold`` into training targets."""
    keep = select_confident(detections.scores, threshold)
    return Targets(boxes=detections.boxes[keep], labels=detections.labels[keep])
