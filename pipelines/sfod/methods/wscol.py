"""Weak-to-strong contrastive learning (WSCoL): what strong views lose of a category, weak views give back.

Source: "Rethinking Weak-to-Strong Augmentation in Source-Free Domain Adaptive Object Detection", arXiv 2410.05557, and
the behaviour of the code released with its third version, where it is called WSCo. The teacher's mapped features of a
weak view are clustered around prototypes; the categories found hold for the same proposals in the strong view, where
the student's mapped features of a category attract each other. The parts stand in files of their own: ``mapping``,
``prototypes``, ``clustering``, ``uncertainty``, ``contrast`` and ``gradient_consistency``.
"""

import torch
from torch import Tensor

from pipelines.sfod.config import Wscol
from pipelines.sfod.methods.clustering import Anchors, Clusters, anchored, find_anchors, mix_clusters, proto_cluster
from pipelines.sfod.methods.contrast import contrast_loss, untrusted_pairs
from pipelines.sfod.methods.prototypes import Prototypes
from pipelines.sfod.methods.uncertainty import proposal_variance
from vision_core.detection.model.detector import Proposals, Targets

_FEWEST = 2  # rows of the foreground, which make no contrast yet


def wscol_loss(  # noqa: PLR0913 (of two models at the same proposals, and what they are compared by)
    student_logits: Tensor,
    student_mapped: Tensor,
    teacher_logits: Tensor,
    teacher_mapped: Tensor,
    proposals: Proposals,
    confident: Targets,
    prototypes: Prototypes,
    settings: Wscol | None = None,
) -> Tensor:
    """Compute the terms of WSCoL of one image beside the detection losses: ``L_st + 0.5 * L_con``.

    The learner adds what these leave out: the clusters of the first epoch, and the contrast of instances and the
    consistency of gradients of ``wsco_full``. Anchors are drawn from torch's global state.

    Args:
        student_logits: ``(N, classes + 1)`` on the strong view, background last.
        student_mapped: ``(N, dim)``, ``MappingNetwork`` of the student's maps of the strong view.
        teacher_logits: ``(N, classes + 1)`` on the weak view.
        teacher_mapped: ``(N, dim)``, the same network of the teacher's maps of the weak view.
        proposals: ``N`` of the teacher; both models see these regions.
        confident: The pseudo labels, at least one.
        prototypes: Prototype of each class.
        settings: Weights and constants; those of ``wsco_full`` if None.

    Returns:
        A scalar; gradients reach ``student_logits`` and ``student_mapped``.
    """
    settings = settings or Wscol()
    anchors = find_anchors(proposals.boxes, confident, teacher_logits.shape[1] - 1)
    clusters = cluster_by_prototypes(teacher_mapped, teacher_logits, prototypes, anchors, settings)
    labels = anchored(clusters.labels, anchors)
    variance = proposal_variance(proposals.boxes, proposals.objectness, settings.objectness)
    divergence = consistency_loss(student_logits, teacher_logits)
    contrast = category_contrast(
        student_mapped, teacher_mapped, labels, teacher_logits.shape[1] - 1, variance, settings
    )
    return settings.consistency_weight * divergence + settings.contrast_weight * contrast


def consistency_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Compute ``L_st``, the mean of ``KL(softmax(z^T) || softmax(z^S))`` over proposals.

    Args:
        student_logits: ``(N, classes + 1)``.
        teacher_logits: ``(N, classes + 1)``, constant.

    Returns:
        A scalar; 0 of no proposal.
    """
    if not len(student_logits):
        return student_logits.sum()  # zero, with a gradient
    log_target = teacher_logits.detach().float().log_softmax(dim=1)
    log_student = student_logits.float().log_softmax(dim=1)
    return (log_target.exp() * (log_target - log_student)).sum(dim=1).mean()


def cluster_by_prototypes(
    mapped: Tensor, logits: Tensor, prototypes: Prototypes, anchors: Anchors, settings: Wscol
) -> Clusters:
    """Cluster the teacher's mapped features ``(N, dim)`` of logits ``(N, classes + 1)`` around the prototypes."""
    return proto_cluster(
        mapped.detach(),
        logits,
        prototypes.vectors,
        prototypes.known,
        anchors,
        steps=settings.steps,
        distance=settings.distance,
    )


def categories(clusters: Clusters, anchors: Anchors, plain: Clusters | None, share: float) -> Tensor:
    """Choose the category of each proposal, ``(N,)`` int64.

    Args:
        clusters: Of the mapped features.
        anchors: Their labels are kept.
        plain: Of the detector's features, in the first epochs.
        share: Share of these epochs that is over.
    """
    labels = clusters.labels if plain is None else mix_clusters(clusters, plain, share)
    return anchored(labels, anchors)


def category_contrast(  # noqa: PLR0913 (two tensors, and what decides which pairs of their rows count)
    student_mapped: Tensor, teacher_mapped: Tensor, labels: Tensor, background: int, variance: float, settings: Wscol
) -> Tensor:
    """Compute ``L_con``, the contrast between categories on the strong view.

    Args:
        student_mapped: ``(N, dim)``.
        teacher_mapped: ``(N, dim)``; decides which pairs of a category are trusted.
        labels: ``(N,)``.
        background: Its label.
        variance: Of the number of proposals; above ``settings.variance`` background takes no part.
        settings: Constants.

    Returns:
        A scalar, 0 where at most two proposals are of the foreground.
    """
    is_object = labels != background
    untrusted = untrusted_pairs(teacher_mapped.detach(), labels, background) if settings.hard_positives else None
    loss = contrast_loss(
        student_mapped,
        labels,
        rows=is_object if variance > settings.variance else None,
        untrusted=untrusted,
        alpha=settings.alpha,
        temperature=settings.temperature,
    )
    return torch.where(is_object.sum() > _FEWEST, loss, torch.zeros_like(loss))
