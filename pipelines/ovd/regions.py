"""Targets of a step, and the regions that are sampled around them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.ovd.methods.matching import ordinary_match, stratified_match
from vision_core.detection.boxes import pairwise_iou
from vision_core.detection.model.detector import Proposals, Targets
from vision_core.detection.model.detectron2_parts import sample_labels
from vision_core.detection.settings import DetectorSettings


@dataclass(frozen=True, kw_only=True)
class OpenTargets:
    """Base boxes and pseudo-labels of one image.

    Attributes:
        boxes: ``(M, 4)`` in pixels of the resized image.
        labels: ``(M,)`` int64.
        is_base: ``(M,)`` bool.
        clip_scores: ``(M,)``, 0 for base boxes.
        confidence: ``(M,)``, 1 for base boxes.
    """

    boxes: Tensor
    labels: Tensor
    is_base: Tensor
    clip_scores: Tensor
    confidence: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def kept(self, keep: Tensor, confidence: Tensor | None = None) -> "OpenTargets":
        """Select rows by ``keep`` ``(M,)`` bool, with another confidence ``(M,)`` if given."""
        scores = self.confidence if confidence is None else confidence
        rows = keep.nonzero().squeeze(1)  # once: the host waits for the device
        return OpenTargets(
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            is_base=self.is_base[rows],
            clip_scores=self.clip_scores[rows],
            confidence=scores[rows],
        )

    def plain(self) -> Targets:
        """Return the boxes and labels alone."""
        return Targets(boxes=self.boxes, labels=self.labels)


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Sampled regions of one view.

    Attributes:
        boxes: ``(R, 4)``.
        labels: ``(R,)`` int64, ``K`` for background.
        matched: ``(R, 4)``, box of the target; the region's own where it is background.
        is_pseudo: ``(R,)`` bool, foreground that was matched with a pseudo-label.
        confidence: ``(R,)`` of the target; 1 where it is background or a base box.
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor
    is_pseudo: Tensor
    confidence: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def joined(cls, parts: Sequence["Regions"]) -> "Regions":
        """Join the regions of several views."""
        names = ("boxes", "labels", "matched", "is_pseudo", "confidence")
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def sample_regions(  # noqa: PLR0913 (proposals and targets, and how they are matched)
    proposals: Proposals,
    targets: OpenTargets,
    settings: DetectorSettings,
    num_classes: int,
    *,
    stratified: bool = True,
    iou: float = 0.5,
    seed: int = 0,
) -> Regions:
    """Match proposals and target boxes with the targets, and sample regions of one view.

    Up to ``roi_positive_fraction`` of ``roi_batch`` regions are foreground, base and pseudo alike; a pseudo-label that
    lies on a base box becomes a region of it.

    Args:
        proposals: Of the view.
        targets: Of the image.
        settings: Number of regions and share of foreground.
        num_classes: ``K``.
        stratified: Base boxes first; else all boxes alike.
        iou: Least overlap of a match, inclusive.
        seed: Of the draw.
    """
    boxes = torch.cat([proposals.boxes, targets.boxes])
    overlaps = pairwise_iou(targets.boxes, boxes) if len(targets) else boxes.new_zeros(0, len(boxes))
    match = stratified_match(overlaps, targets.is_base, iou) if stratified else ordinary_match(overlaps, iou)
    row, is_matched = match
    labels = torch.full_like(row, num_classes)
    if len(targets):
        labels = torch.where(is_matched, targets.labels[row], labels)
    generator = torch.Generator().manual_seed(seed)
    positive, negative = sample_labels(
        labels, settings.roi_batch, settings.roi_positive_fraction, num_classes, generator
    )
    chosen = torch.cat([positive, negative])
    row, labels, boxes = row[chosen], labels[chosen], boxes[chosen]
    is_foreground = labels < num_classes
    if not len(targets):
        ones = torch.ones(len(chosen), device=boxes.device)
        return Regions(boxes=boxes, labels=labels, matched=boxes, is_pseudo=is_foreground, confidence=ones)
    is_pseudo = is_foreground & ~targets.is_base[row]
    confidence = targets.confidence[row]
    return Regions(
        boxes=boxes,
        labels=labels,
        matched=torch.where(is_foreground[:, None], targets.boxes[row], boxes),
        is_pseudo=is_pseudo,
        confidence=torch.where(is_pseudo, confidence, torch.ones_like(confidence)),
    )
