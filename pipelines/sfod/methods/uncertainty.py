"""Uncertainty estimator of WSCoL: how much the number of proposals depends on how strictly they are suppressed.

Source: arXiv 2410.05557 and the behaviour of the code released with its third version.
"""

import statistics

import torch
from torch import Tensor
from torchvision.ops import nms

IOUS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


@torch.no_grad()
def proposal_variance(boxes: Tensor, objectness: Tensor, least: float = 0.5) -> float:
    """Compute the variance of the numbers of proposals that survive suppression at six overlaps.

    Args:
        boxes: ``(N, 4)`` ``xyxy`` proposals of the teacher.
        objectness: ``(N,)`` logits.
        least: Proposals of a smaller or equal objectness, as a probability, do not count.

    Returns:
        Population variance over the overlaps 0 to 0.5, regardless of class; 0 without a proposal. The host waits for
        the boxes once, as suppression on a device would make it wait six times.
    """
    held = torch.cat([boxes.float(), objectness.float()[:, None]], dim=1).cpu()
    held = held[held[:, 4].sigmoid() > least]
    if not len(held):
        return 0.0
    return statistics.pvariance([float(len(nms(held[:, :4], held[:, 4], iou))) for iou in IOUS])
