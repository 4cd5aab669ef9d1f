"""Losses of segmenters: Dice, and the term that asks whether a frame shows the object."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vision_core.optional import require
from vision_core.segmentation.settings import FrameAware, SegmentationLoss

EPSILON = 1e-7
Total = Callable[[Tensor], Tensor]
_LEAST = 1e-6  # a mean of probabilities is kept this far from 0 and 1, so that its logit is finite


def segmentation_losses(
    logits: Tensor, targets: Tensor, present: Tensor, loss: SegmentationLoss, total: Total | None = None
) -> dict[str, Tensor]:
    """Compute the terms of a segmenter's loss, which are summed.

    Args:
        logits: ``(B, 1, H, W)``.
        targets: ``(B, 1, H, W)`` in [0, 1]; observers' means may lie between.
        present: ``(B,)`` of 0 and 1: whether the frame shows the object.
        loss: Settings.
        total: Sums over the processes of a training, for Dice over the whole batch; None: there is one process.
    """
    logits = logits.float()
    terms = {"dice": dice_loss(logits.sigmoid(), targets, loss.reduction, total)}
    if loss.frame_aware.weight:
        terms["presence"] = loss.frame_aware.weight * presence_loss(logits, present, loss.frame_aware)
    return terms


def dice_loss(
    probabilities: Tensor,
    targets: Tensor,
    reduction: Literal["batch", "per_image"] = "batch",
    total: Total | None = None,
) -> Tensor:
    """Compute ``1 - (2 Σpt + ε) / (Σp + Σt + ε)`` by MONAI's ``DiceLoss``.

    Over a batch, a frame without the object counts by what is predicted in it, relative to the others. A batch of such
    frames alone has a loss near 1 and hardly a gradient.

    Args:
        probabilities: ``(B, 1, H, W)``.
        targets: ``(B, 1, H, W)`` in [0, 1].
        reduction: Over all pixels of the batch, or the mean over its images.
        total: Sums over the processes that share the batch, with a gradient; MONAI knows the own part of it alone.
    """
    if total and reduction == "batch":
        sums = total(torch.stack([(probabilities * targets).sum(), probabilities.sum() + targets.sum()]))
        return 1 - (2 * sums[0] + EPSILON) / (sums[1] + EPSILON)
    monai = require("monai.losses", "the Dice loss is its own")
    dice = monai.DiceLoss(batch=reduction == "batch", smooth_nr=EPSILON, smooth_dr=EPSILON)
    return dice(probabilities, targets.to(probabilities.dtype))  # type: ignore[no-any-return]


def presence_loss(logits: Tensor, present: Tensor, settings: FrameAware) -> Tensor:
    """Compute the weighted cross-entropy of the frame's probability, by ``presence_logits``.

    Args:
        logits: ``(B, 1, H, W)``.
        present: ``(B,)`` of 0 and 1.
        settings: Weights of both kinds of frame, and the share of pixels.
    """
    truth = present.to(logits.dtype)
    weights = torch.where(present > 0, settings.present_weight, settings.absent_weight)
    return F.binary_cross_entropy_with_logits(presence_logits(logits, settings.top_share), truth, weight=weights)


def presence_logits(logits: Tensor, top_share: float = 0.0) -> Tensor:
    """Compute the logit ``(B,)`` that a frame shows the object: of its highest pixel, or of the mean of the highest.

    Args:
        logits: ``(B, 1, H, W)``.
        top_share: Share of the pixels to average, one at least.
    """
    pixels = logits.flatten(1)
    count = int(top_share * pixels.shape[1])
    if count <= 1:
        return pixels.amax(dim=1)
    return pixels.topk(count, dim=1).values.sigmoid().mean(dim=1).clamp(_LEAST, 1 - _LEAST).logit()
