"""Agreement of two sets of detections of one image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vision_core.detection.boxes import pairwise_iou
from vision_core.detection.model.detector import DetectionTensors

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Pairs of overlapping boxes of one class, each box in one pair at most.

    Attributes:
        first: ``(P,)`` places in the first set.
        second: ``(P,)`` places in the second.
        ious: ``(P,)``, above 0.
        boxes: Boxes of both sets together.
    """

    first: Places
    second: Places
    ious: Floats
    boxes: int

    @property
    def sums(self) -> Floats:
        """Return ``(2,)``: twice the overlap, and the boxes it is out of.

        Their ratio is the agreement A = 2 ΣIoU / (n_a + n_b): 1 where both sets are the same, 0 where nothing overlaps,
        without meaning where neither has a box.
        """
        return np.array([2 * self.ious.sum(), self.boxes])


def match(first: DetectionTensors, second: DetectionTensors) -> Matching:
    """Match boxes one to one within each class so that the sum of IoUs is largest.

    The bipartite matching of box stability (arXiv 2403.13803) with the IoU itself as gain; there boxes without a
    partner fall out of the mean, here they lower it, as a box that comes and goes is not stable.
    """
    overlaps = pairwise_iou(first.boxes, second.boxes).cpu().numpy().astype(np.float64)
    overlaps[first.labels.cpu().numpy()[:, None] != second.labels.cpu().numpy()[None]] = 0
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    ious = overlaps[rows, columns]
    together = ious > 0
    return Matching(
        first=rows[together], second=columns[together], ious=ious[together], boxes=len(first.boxes) + len(second.boxes)
    )
