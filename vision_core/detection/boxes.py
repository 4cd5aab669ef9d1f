"""Box arithmetic in continuous coordinates: ``xyxy`` pixels, a box is ``x2 - x1`` wide (no ``+ 1``)."""

from torch import Tensor
from torchvision.ops import box_iou


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Compute the IoU of all pairs of ``(N, 4)`` and ``(M, 4)`` boxes: ``(N, M)``.

    A box without area overlaps nothing.
    """
    return box_iou(first, second).nan_to_num(0.0)  # type: ignore[no-any-return]


def largest_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Compute the largest IoU of ``boxes`` ``(N, 4)`` with any of ``others`` ``(M, 4)``: ``(N,)``, 0 if M is 0."""
    if not len(others):
        return boxes.new_zeros(len(boxes))
    return pairwise_iou(boxes, others).amax(dim=1)


def scale_boxes(boxes: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """Scale boxes ``(N, 4)`` from an image of ``size`` to ``new_size``, both ``(height, width)``."""
    down, across = new_size[0] / size[0], new_size[1] / size[1]
    return boxes * boxes.new_tensor([across, down, across, down])
