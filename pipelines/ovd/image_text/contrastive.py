"""Contrastive training of an image–text model on crops of single objects and sentences about them.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021); images of one
class in a batch are all positives of its sentences, as in Yang et al., "Unified Contrastive Learning" (2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.ovd.image_text.compact import CompactModel
from pipelines.ovd.image_text.prompts import expand
from vision_core.errors import DataError, TrainingError
from vision_core.randomness import key


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings:
    """Schedule of the contrastive training.

    Attributes:
        steps: Updates.
        batch_size: Crops a step.
        lr: Rate of AdamW at the start; a cosine ends it at 0.
        seed: Key of all draws.
    """

    steps: int = 400
    batch_size: int = 96
    lr: float = 2e-3
    seed: int = 0


def contrastive_loss(images: Tensor, texts: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Compute the symmetric cross-entropy between images and sentences, with several positives.

    ``Q_ij = 1[y_i = y_j] / |{j: y_i = y_j}|``; the loss is the mean of ``-sum_j Q_ij log softmax_j(scale u_i v_j)`` and
    the same with images and sentences exchanged.

    Args:
        images: ``(N, D)`` of length 1.
        texts: ``(N, D)`` of length 1, the sentence of each image.
        labels: ``(N,)`` int64.
        scale: Factor of the cosines.
    """
    logits = scale * images @ texts.T
    same = (labels[:, None] == labels).float()
    targets = same / same.sum(dim=1, keepdim=True)  # symmetric pairs: the same for both directions
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def train_compact(
    model: CompactModel,
    crops: Tensor,
    labels: Tensor,
    names: Sequence[str],
    settings: ContrastiveSettings | None = None,
) -> list[float]:
    """Train a compact model in place; its text encoder stays frozen.

    The crops are of all classes that it shall know, also of those that a detector is never shown: it takes the part of
    a model that has seen everything, but never a box or background.

    Args:
        model: The model.
        crops: ``(N, 3, S, S)`` uint8, a single object each.
        labels: ``(N,)`` int64, index into ``names``.
        names: Names of the classes.
        settings: Schedule.

    Returns:
        The loss of each step.

    Raises:
        DataError: There are no crops, or fewer than two classes.
        TrainingError: A loss is not finite.
    """
    settings = settings or ContrastiveSettings()
    if len(labels.unique()) < 2:
        raise DataError(f"'{len(crops)}' crops of '{len(labels.unique())}' classes: expected two classes or more.")
    sentences = _embedded_prompts(model, names)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=settings.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    losses = []
    model.train()
    for step in range(settings.steps):
        generator = torch.Generator().manual_seed(key("contrastive", settings.seed, step))
        rows = torch.randperm(len(crops), generator=generator)[: settings.batch_size]
        kinds = torch.randint(0, sentences.shape[1], (len(rows),), generator=generator)
        batch = labels[rows]
        images = functional.normalize(model.embed_images(model.normalised(_mirrored(crops[rows], generator))), dim=1)
        texts = functional.normalize(model.project_texts(sentences[batch, kinds].to(model.device)), dim=1)
        loss = contrastive_loss(images, texts, batch.to(model.device), model.scale())
        if not loss.isfinite():
            raise TrainingError(f"The contrastive loss of step {step} is not finite. Lower the rate '{settings.lr:g}'.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.eval()
    return losses


def _embedded_prompts(model: CompactModel, names: Sequence[str]) -> Tensor:
    """Embed all prompts of all names once, for the encoder is frozen: ``(K, P, 384)``."""
    return torch.stack([model.read_texts(expand(name)) for name in names]).cpu()


def _mirrored(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the crops ``(N, 3, S, S)`` left to right."""
    is_turned = torch.rand(len(crops), generator=generator) < 0.5
    return torch.where(is_turned[:, None, None, None], crops.flip(3), crops)
