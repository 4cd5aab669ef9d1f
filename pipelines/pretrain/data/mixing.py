"""Mixup and cutmix: training on pairs of images with labels in proportion.

Sources: Zhang et al., "mixup", 2018; Yun et al., "CutMix", 2019. An image's partner is its neighbour in the batch.
"""

import random
from typing import NamedTuple

from torch import Tensor

from pipelines.pretrain.config import Mixing


class Box(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the latter of each left out."""

    top: int
    bottom: int
    left: int
    right: int


def mix(images: Tensor, targets: Tensor, settings: Mixing, seed: int) -> tuple[Tensor, Tensor]:
    """Mix a batch by the method that is switched on, by one of the two at even odds if both are.

    Args:
        images: ``(B, 3, H, W)``.
        targets: Probabilities ``(B, classes)``.
        settings: Which, and how strongly.
        seed: All draws follow from it.
    """
    draw = random.Random(seed)
    methods = [name for name in ("mixup", "cutmix") if getattr(settings, name)]
    if not methods:
        return images, targets
    method = draw.choice(methods)
    strength = getattr(settings, method)
    share = draw.betavariate(strength, strength)
    if method == "mixup":
        return mixup(images, targets, share)
    height, width = images.shape[-2:]
    centre = draw.randrange(height), draw.randrange(width)
    return cutmix(images, targets, cut_box((height, width), share, centre))


def mixup(images: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """``share`` of every image and target plus the rest of its partner's."""
    return _partners(images).lerp(images, share), _partners(targets).lerp(targets, share)


def cutmix(images: Tensor, targets: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """Every image with its partner's pixels in ``box``; targets in proportion to the area."""
    height, width = images.shape[-2:]
    share = 1 - (box.bottom - box.top) * (box.right - box.left) / (height * width)
    mixed = images.clone()
    inside = (..., slice(box.top, box.bottom), slice(box.left, box.right))
    mixed[inside] = _partners(images)[inside]
    return mixed, _partners(targets).lerp(targets, share)


def cut_box(size: tuple[int, int], share: float, centre: tuple[int, int]) -> Box:
    """The box around ``centre`` with ``1 - share`` of the area, in the image's proportions and cut at its border."""
    (top, bottom), (left, right) = (
        _cut(length, (1 - share) ** 0.5, middle) for length, middle in zip(size, centre, strict=True)
    )
    return Box(top, bottom, left, right)


def _cut(length: int, fraction: float, middle: int) -> tuple[int, int]:
    half = int(length * fraction) // 2
    return max(middle - half, 0), min(middle + half, length)


def _partners(batch: Tensor) -> Tensor:
    return batch.roll(1, dims=0)
