"""Selection of candidates among scored boxes: one function for VL-PLM and for MarvelOVD."""

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from pipelines.ovd.config import Candidates


def candidate_scores(clip_scores: Tensor, rpn_scores: Tensor, settings: Candidates) -> Tensor:
    """Compute the scores ``(N,)`` that decide: of the image–text model, or ``w rpn + (1 - w) clip``."""
    if settings.fusion == "clip":
        return clip_scores
    return settings.rpn_weight * rpn_scores + (1 - settings.rpn_weight) * clip_scores


def select_candidates(
    boxes: Tensor, clip_scores: Tensor, rpn_scores: Tensor, classes: Tensor, settings: Candidates
) -> Tensor:
    """Select the candidates of an image: scores strictly above the threshold, then suppression within classes.

    Boxes that lie on labelled objects stay; the assignment in strata deals with them.

    Args:
        boxes: ``(N, 4)``.
        clip_scores: ``(N,)``, of the likeliest name.
        rpn_scores: ``(N,)``, objectness in 0 to 1.
        classes: ``(N,)`` int64, the likeliest name.
        settings: Fusion, threshold, overlap.

    Returns:
        Indices of the kept boxes, the highest score first.
    """
    scores = candidate_scores(clip_scores, rpn_scores, settings)
    above = (scores > settings.threshold).nonzero().squeeze(1)
    if not len(above):
        return above
    kept = batched_nms(boxes[above].float(), scores[above].float(), classes[above], settings.nms)
    return above[kept].to(torch.int64)
