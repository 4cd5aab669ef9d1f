"""Class-agnostic proposals of an image, refined by passes through the box head."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.ovd.config import Proposals as ProposalSettings
from vision_core.detection.boxes import scale_boxes
from vision_core.detection.model.detector import Detector, Features
from vision_core.detection.weights.bundles import prepare


@dataclass(frozen=True, kw_only=True)
class ImageProposals:
    """Regions of an image: ``boxes`` ``(N, 4)`` in its own pixels, ``objectness`` ``(N,)`` in 0 to 1, highest first."""

    boxes: Tensor
    objectness: Tensor


@torch.no_grad()
def propose_in_image(detector: Detector, image: NDArray[np.uint8], settings: ProposalSettings) -> ImageProposals:
    """Propose regions by the anchors of a generator and refine them, without suppressing or scoring them anew.

    The first ``settings.count`` regions are taken before they are refined: the same boxes, for a tenth of the work.

    Args:
        detector: The generator, in evaluation mode; of one class, or its decoded boxes are averaged over classes.
        image: ``(H, W, 3)`` uint8 RGB.
        settings: Number, passes, and the way back to the image.
    """
    prepared = prepare(image, detector.settings).to(detector.pixel_mean.device)
    features = detector.features([prepared])
    [proposals] = detector.propose(features)
    boxes = refine(
        lambda each: _regress(detector, features, each), proposals.boxes[: settings.count], settings.refinements
    )
    size, resized = (image.shape[0], image.shape[1]), (prepared.shape[1], prepared.shape[2])
    scaled = boxes * (size[0] / resized[0]) if settings.one_ratio else scale_boxes(boxes, resized, size)
    return ImageProposals(boxes=scaled.cpu(), objectness=proposals.objectness[: settings.count].sigmoid().cpu())


def refine(regress: Callable[[Tensor], Tensor], boxes: Tensor, passes: int) -> Tensor:
    """Apply a regression of boxes ``(N, 4)`` several times; nothing is clipped in between."""
    for _ in range(passes if len(boxes) else 0):
        boxes = regress(boxes)
    return boxes


def _regress(detector: Detector, features: Features, boxes: Tensor) -> Tensor:
    _, deltas = detector.score(detector.embed(detector.pool(features, [boxes])))
    return detector.decode(deltas, boxes).mean(dim=1)
