"""Low-confidence pseudo label distillation (LPLD): soft labels from proposals that the teacher is unsure of.

Source: Yoon et al., "Enhancing Source-Free Domain Adaptive Object Detection with Low-confidence Pseudo Label
Distillation", ECCV 2024, and the behaviour of the code released with it. Symbols: ``P`` proposals, ``HPL`` confident
pseudo labels, ``LPL`` the selected proposals ``K``, ``z`` logits with background last, ``f`` pooled features, ``t`` the
soft label, ``w`` the distance weight; exponents ``T`` and ``S`` stand for teacher and student.
"""

import torch
from torch import Tensor
from torchvision.ops import nms

from pipelines.sfod.config import Lpld
from vision_core.detection.boxes import largest_iou


def lpld_loss(  # noqa: PLR0913 (six tensors, and the settings by name)
    student_logits: Tensor,
    student_features: Tensor,
    teacher_logits: Tensor,
    teacher_features: Tensor,
    boxes: Tensor,
    confident: Tensor,
    *,
    iou: float = 0.4,
    foreground: float = 0.9,
    background: float = 0.99,
    epsilon: float = 1e-9,
    weight: float = 0.1,
    lpl_without_hpl: bool = False,
    lpl_nms_iou: float | None = None,
) -> Tensor:
    """Compute the LPLD loss of one image from all ``N`` proposals.

    ``L = weight / |K| * sum_{i in K} w_i * KL(t_i || softmax(z_i^S))`` with ``w_i = 1 - cos(f_i^S, f_i^T)`` and
    ``t_i = [softmax(z_i^T without background), epsilon]``. ``K`` holds each proposal with
    ``max_j IoU(box_i, HPL_j) <= iou``, ``max t_i >= foreground`` and ``softmax(z_i^T)[background] <= background``.

    Student and teacher score the same proposals, those of the teacher, on a strong and a weak view of the image.
    Gradients reach ``student_logits`` alone.

    Args:
        student_logits: ``(N, classes + 1)``, background last.
        student_features: ``(N, D)``, pooled.
        teacher_logits: ``(N, classes + 1)``, background last.
        teacher_features: ``(N, D)``, pooled.
        boxes: ``(N, 4)`` ``xyxy`` in pixels, from ``teacher_boxes``.
        confident: ``(M, 4)``, the teacher's detections that serve as pseudo labels.
        iou: Largest overlap of a selected proposal with any confident box.
        foreground: Least confidence among the foreground classes alone.
        background: Largest probability of background.
        epsilon: Background entry of the soft label.
        weight: Factor of the loss.
        lpl_without_hpl: Distil where ``M`` is 0 too, which the publication does not.
        lpl_nms_iou: Suppress a selected proposal that overlaps a surer one more; None, as published: no suppression.

    Returns:
        A scalar; 0 where no proposal is selected.

    Raises:
        ValueError: A setting is out of its range.
    """
    settings = Lpld(
        iou=iou,
        foreground=foreground,
        background=background,
        epsilon=epsilon,
        weight=weight,
        lpl_without_hpl=lpl_without_hpl,
        lpl_nms_iou=lpl_nms_iou,
    )
    kept = select_low_confidence(boxes, teacher_logits, confident, settings)
    if not len(kept):
        return student_logits[:0].sum()  # zero, with a gradient
    weights = distance_weights(student_features[kept], teacher_features[kept])
    return distil(student_logits[kept], teacher_logits[kept], weights, settings)


def teacher_boxes(proposals: Tensor, logits: Tensor, decoded: Tensor) -> Tensor:
    """Choose each proposal's box: decoded for its best class, unchanged for background.

    Args:
        proposals: ``(N, 4)``.
        logits: ``(N, classes + 1)`` of the teacher, background last.
        decoded: ``(N, classes, 4)``, the teacher's box of each class.

    Returns:
        ``(N, 4)``, not clipped to the image.
    """
    best = logits.argmax(dim=1)
    background = logits.shape[1] - 1
    rows = torch.arange(len(proposals), device=proposals.device)
    chosen = decoded[rows, best.clamp(max=background - 1)]  # (N, 4)
    return torch.where((best == background)[:, None], proposals, chosen)


def select_low_confidence(boxes: Tensor, logits: Tensor, confident: Tensor, settings: Lpld) -> Tensor:
    """Select the proposals to distil, as ascending indices.

    These are far from every confident box, sure of their class among the foreground, and not surely background.

    Args:
        boxes: ``(N, 4)`` from ``teacher_boxes``.
        logits: ``(N, classes + 1)`` of the teacher, background last.
        confident: ``(M, 4)`` boxes of the pseudo labels.
        settings: Thresholds.
    """
    if len(boxes) == 0 or (len(confident) == 0 and not settings.lpl_without_hpl):
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    foreground = logits[:, :-1].softmax(dim=1).amax(dim=1)
    background = logits.softmax(dim=1)[:, -1]
    far = largest_iou(boxes, confident) <= settings.iou
    kept = (far & (foreground >= settings.foreground) & (background <= settings.background)).nonzero().squeeze(1)
    if settings.lpl_nms_iou is None:
        return kept
    # Surer means less background; suppression returns the surest first.
    survivors = nms(boxes[kept], 1 - background[kept], settings.lpl_nms_iou)
    return kept[survivors].sort().values


def soft_log_labels(logits: Tensor, epsilon: float) -> Tensor:
    """Compute the logarithm of the soft labels ``t``.

    A soft label is the softmax over the foreground, then ``epsilon`` for background: its sum is slightly above 1.

    Args:
        logits: ``(n, classes + 1)`` of the teacher.
        epsilon: Entry for background.
    """
    foreground = logits[:, :-1].log_softmax(dim=1)
    background = torch.full_like(foreground[:, :1], epsilon).log()
    return torch.cat([foreground, background], dim=1)


def distance_weights(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute ``w = 1 - cos`` of the pooled features ``(n, D)``, detached: ``(n,)`` in [0, 2]."""
    return 1 - torch.cosine_similarity(student.detach().float(), teacher.detach().float(), dim=1)


def distil(student_logits: Tensor, teacher_logits: Tensor, weights: Tensor, settings: Lpld) -> Tensor:
    """Compute the loss of the ``n`` selected proposals of one image.

    It is the weighted KL divergence from soft label to student, averaged, times ``settings.weight``; 0 of no proposal.

    Args:
        student_logits: ``(n, classes + 1)``.
        teacher_logits: ``(n, classes + 1)``.
        weights: ``(n,)``.
        settings: Epsilon and weight.
    """
    if not len(student_logits):
        return student_logits.sum()  # zero, with a gradient
    log_target = soft_log_labels(teacher_logits.detach().float(), settings.epsilon)
    # Softmax followed by a logarithm would underflow to 0 * inf; log-softmax cannot.
    log_student = student_logits.float().log_softmax(dim=1)
    divergence = (log_target.exp() * (log_target - log_student)).sum(dim=1)
    return settings.weight * (weights * divergence).mean()
