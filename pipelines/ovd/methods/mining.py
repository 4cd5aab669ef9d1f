"""Choice of the pseudo-labels of a step among the candidates of an image.

Source: MarvelOVD (arXiv 2407.21465), online mining, and the behaviour of the program released with it. An image–text
model has no notion of background; the detector has, and judges each candidate in its present state.

Symbols: ``P`` ``(M, K + 1)`` the detector's probabilities on the weak view at all ``M`` boxes, ``c`` the candidates'
scores by the image–text model, ``z`` novelty, ``d`` relative novelty, ``s`` score, ``lambda`` and ``delta``.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Mined:
    """Verdict on the ``M`` boxes of an image.

    Attributes:
        keep: ``(M,)`` bool; all base boxes are kept.
        score: ``(M,)``, 1 for base boxes.
        novelty: ``(M,)``, the detector's probability of any novel class.
    """

    keep: Tensor
    score: Tensor
    novelty: Tensor


def novelty(probabilities: Tensor, is_novel: Tensor) -> Tensor:
    """Add up the probabilities of the novel classes, ``z_i = sum_{k novel} P_ik``.

    Args:
        probabilities: ``(M, K + 1)``, background last.
        is_novel: ``(K,)`` bool.

    Returns:
        ``(M,)``.
    """
    return probabilities[:, :-1] @ is_novel.to(probabilities.dtype)


def relative_novelty(novelty: Tensor, is_base: Tensor, norm: Literal["all", "candidates"] = "all") -> Tensor:
    """Divide novelty by its maximum over the image, ``d_i = z_i / max_j z_j``; 0 where the maximum is 0.

    Args:
        novelty: ``(M,)``.
        is_base: ``(M,)`` bool.
        norm: The maximum is over all boxes, as released, or over the candidates alone, as the paper says.
    """
    if not len(novelty):
        return novelty
    counted = novelty.masked_fill(is_base, 0.0) if norm == "candidates" else novelty
    largest = counted.max()
    return torch.where(largest > 0, novelty / largest, torch.zeros_like(novelty))


def mine(  # noqa: PLR0913 (four tensors, and the settings by name)
    probabilities: Tensor,
    clip_scores: Tensor,
    is_base: Tensor,
    is_novel: Tensor,
    *,
    clip_weight: float = 0.5,
    threshold: float = 0.9,
    norm: Literal["all", "candidates"] = "all",
    min_novelty: float = 0.0,
) -> Mined:
    """Choose the pseudo-labels of a step.

    ``s_i = lambda c_i + (1 - lambda) d_i``, and 1 for base boxes; kept where ``s_i >= delta``. The novelty is relative
    to its image: the most novel box always has ``d = 1``, however sure the detector is of background. Neither class nor
    box of a candidate is changed.

    Args:
        probabilities: ``(M, K + 1)`` on the weak view, background last.
        clip_scores: ``(M,)``, of the candidates; not used for base boxes.
        is_base: ``(M,)`` bool.
        is_novel: ``(K,)`` bool.
        clip_weight: ``lambda``.
        threshold: ``delta``, inclusive.
        norm: As for ``relative_novelty``.
        min_novelty: Ours: a candidate of less absolute novelty is dropped; 0 drops none.
    """
    novel = novelty(probabilities, is_novel)
    score = clip_weight * clip_scores + (1 - clip_weight) * relative_novelty(novel, is_base, norm)
    score = torch.where(is_base, torch.ones_like(score), score)
    keep = (score >= threshold) & (novel >= min_novelty)
    return Mined(keep=keep | is_base, score=score, novelty=novel)


def burn_in_keep(confidence: Tensor, is_base: Tensor, threshold: float = 0.9) -> Tensor:
    """Keep base boxes and candidates whose confidence ``(M,)`` is at least ``threshold``: ``(M,)`` bool."""
    return is_base | (confidence >= threshold)
