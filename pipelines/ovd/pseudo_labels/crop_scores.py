"""Scores of boxes by an image–text model, from crops of several scales, against the names of the novel classes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipelines.ovd.config import ImageText
from pipelines.ovd.image_text.crops import cut_crops, scale_boxes_about_center
from pipelines.ovd.image_text.model import ImageTextModel


@dataclass(frozen=True, kw_only=True)
class CropScores:
    """Scores of the ``n`` boxes of an image that are large enough.

    Attributes:
        rows: ``(n,)`` int64, which of the given boxes they are.
        boxes: ``(n, 4)``, clipped to the image.
        scores: ``(n, topk)`` float32, highest first.
        classes: ``(n, topk)`` int64, index into the names.
    """

    rows: Tensor
    boxes: Tensor
    scores: Tensor
    classes: Tensor


@torch.no_grad()
def score_crops(  # noqa: PLR0913 (three inputs and three settings)
    model: ImageTextModel,
    names: Tensor,
    image: NDArray[np.uint8],
    boxes: Tensor,
    settings: ImageText,
    *,
    min_side_px: float = 5.0,
    topk: int = 5,
) -> CropScores:
    """Score boxes of an image by the names.

    ``v = normalise(mean_s normalise(E(crop_s)))`` over the scales and ``p = softmax_k(v t_k / T)``, all in float32: in
    half precision a surer candidate rounds to exactly 1. There is no class of background.

    Args:
        model: Embeds the crops, in batches of ``settings.batch_size``.
        names: ``(K, D)``, embeddings of length 1.
        image: ``(H, W, 3)`` uint8 RGB.
        boxes: ``(N, 4)``, ``xyxy`` in pixels of the image.
        settings: Scales, temperature, shape of the crops.
        min_side_px: Boxes of a shorter side once clipped are left out.
        topk: Scores kept a box.
    """
    size = image.shape[0], image.shape[1]
    clipped = scale_boxes_about_center(boxes.float(), 1, size)
    sides = clipped[:, 2:] - clipped[:, :2]
    rows = (sides >= min_side_px).all(dim=1).nonzero().squeeze(1)
    kept = clipped[rows]
    scaled = torch.stack([scale_boxes_about_center(kept, scale, size) for scale in settings.crop_scales], dim=1)
    flat = scaled.flatten(0, 1)  # (n * scales, 4)
    chunks = [
        model.encode_images(cut_crops(image, each, model.image_size, settings.crop_mode)).cpu()
        for each in flat.split(settings.batch_size)
        if len(each)
    ]
    embedded = torch.cat(chunks) if chunks else torch.zeros(0, names.shape[1])
    embedded = embedded.unflatten(0, (-1, len(settings.crop_scales))) if len(rows) else embedded[:, None]
    probabilities = name_probabilities(embedded, names.cpu(), settings.temperature)
    scores, classes = probabilities.topk(min(topk, len(names)), dim=1)
    return CropScores(rows=rows, boxes=kept, scores=scores, classes=classes)


def name_probabilities(embedded: Tensor, names: Tensor, temperature: float = 0.01) -> Tensor:
    """Average embeddings over scales and compare them with names.

    Args:
        embedded: ``(n, scales, D)``, of any length.
        names: ``(K, D)``, of length 1.
        temperature: Divides the cosines.

    Returns:
        ``(n, K)`` float32; rows add up to 1.
    """
    joined = functional.normalize(functional.normalize(embedded.float(), dim=2).mean(dim=1), dim=1)
    return (joined @ names.float().T / temperature).softmax(dim=1)
