"""Low-confidence pseudo label distillation: soft labels from proposals that the teacher is unsure of.

Source: Yoon et al., "Enhancing Source-Free Domain Adaptive Object Detection with Low-confidence Pseudo Label
Distillation", ECCV 2024. Symbols: ``P`` proposals, ``HPL`` confident pseudo labels, ``LPL`` the selected proposals,
``z`` logits with background last, ``f`` pooled features, ``t`` the soft label.
"""

import torch
from torch import Tensor
from torchvision.ops import nms

from pipelines.sfod.config import Lpld
from vision_core.detection.boxes import largest_iou


def teacher_boxes(proposals: Tensor, logits: Tensor, decoded: Tensor) -> Tensor:
    """Where the teacher sees each proposal's object: the box of its best class, or the raw proposal if background.

    Args:
        proposals: ``(N, 4)``.
        logits: ``(N, classes + 1)``, background last.
        decoded: ``(N, classes, 4)``.

    Returns:
        ``(N, 4)``, not clipped to the image.
    """
    best = logits.argmax(dim=1)
    background = logits.shape[1] - 1
    rows = torch.arange(len(proposals), device=proposals.device)
    chosen = decoded[rows, best.clamp(max=background - 1)]  # (N, 4)
    return torch.where((best == background)[:, None], proposals, chosen)


def select_low_confidence(boxes: Tensor, logits: Tensor, confident: Tensor, settings: Lpld) -> Tensor:
    """Indices of the proposals to distil, ascending.

    Kept are those far from every confident box, sure of their class among the foreground, and not surely background.

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
    """Logarithm of the soft label ``t``: softmax over the foreground, then ``epsilon`` for background; sums to over 1.

    Args:
        logits: ``(n, classes + 1)`` of the teacher.
        epsilon: Entry for background.
    """
    foreground = logits[:, :-1].log_softmax(dim=1)
    background = torch.full_like(foreground[:, :1], epsilon).log()
    return torch.cat([foreground, background], dim=1)


def distance_weights(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 - cos`` between the pooled features ``(n, D)`` of student and teacher, detached: ``(n,)`` in [0, 2]."""
    return 1 - torch.cosine_similarity(student.detach().float(), teacher.detach().float(), dim=1)


def distil(student_logits: Tensor, teacher_logits: Tensor, weights: Tensor, settings: Lpld) -> Tensor:
    """The loss over the ``n`` selected proposals of one image: weighted KL from soft label to student, mean, scaled.

    Args:
        student_logits: ``(n, classes + 1)``.
        teacher_logits: ``(n, classes + 1)``.
        weights: ``(n,)``.
        settings: Epsilon and weight.
    """
    log_target = soft_log_labels(teacher_logits.detach().float(), settings.epsilon)
    # Softmax followed by a logarithm would underflow to 0 * inf; log-softmax cannot.
    log_student = student_logits.float().log_softmax(dim=1)
    divergence = (log_target.exp() * (log_target - log_student)).sum(dim=1)
    return settings.weight * (weights * divergence).mean()
