"""Faster R-CNN behind one interface: the only operations of detectron2 that methods use.

Boxes are ``xyxy`` float32 in pixels of the resized image that was given; a batch is a list of images of any size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn import functional

from vision_core.detection.model.detectron2_parts import build_parts
from vision_core.detection.model.vgg import DropoutHead
from vision_core.detection.settings import DetectorSettings

LOSS_NAMES = {  # for people
    "loss_rpn_cls": "Loss: is there an object (candidates)",
    "loss_rpn_loc": "Loss: where it is (candidates)",
    "loss_cls": "Loss: which class",
    "loss_box_reg": "Loss: where it is exactly",
}


@dataclass(frozen=True, kw_only=True)
class Features:
    """Feature maps of a batch.

    Attributes:
        maps: ``(B, C, H / stride, W / stride)`` by level.
        sizes: ``(height, width)`` of each image before padding, in pixels.
    """

    maps: dict[str, Tensor]
    sizes: list[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """Candidate regions of one image: ``boxes`` ``(N, 4)`` and ``objectness`` logits ``(N,)``, highest first."""

    boxes: Tensor
    objectness: Tensor


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Boxes to learn for one image: ``boxes`` ``(M, 4)`` and ``labels`` ``(M,)`` int64."""

    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class DetectionTensors:
    """Detections in one image: ``boxes`` ``(K, 4)`` in it, ``scores`` ``(K,)`` highest first, ``labels`` ``(K,)``.

    ``regions`` ``(K,)`` int64 are the places of the proposals that they come from, where a detector made them.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    regions: Tensor | None = None


class Detector(nn.Module):
    """Faster R-CNN with a C4, pyramid or VGG head; its weights carry detectron2's own names.

    Normalisation layers are frozen, in train mode too. The mode decides only how many proposals are kept.

    Args:
        settings: Architecture and constants.
        classes: Names of the foreground classes in the order of the logits; background comes last.

    Raises:
        ConfigError: Backbone, neck and anchors do not fit each other.
    """

    def __init__(self, settings: DetectorSettings, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.settings = settings
        self.classes = classes
        self.backbone: Any
        self.proposal_generator: Any
        self.roi_heads: Any
        self.backbone, self.proposal_generator, self.roi_heads = build_parts(settings, len(classes))
        if settings.backbone == "lite0":
            # Depthwise convolutions: in this layout a training step takes three quarters of the time on a CPU.
            self.to(memory_format=torch.channels_last)
        # Not persistent: they are settings, and detectron2's own checkpoints do not have them either.
        self.register_buffer("pixel_mean", torch.tensor(settings.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(settings.pixel_std).view(3, 1, 1), persistent=False)
        self.pixel_mean: Tensor
        self.pixel_std: Tensor

    @property
    def num_classes(self) -> int:
        """Number of foreground classes, which is also the index of background."""
        return len(self.classes)

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the map that ``pool`` gives for a region."""
        side = self.settings.pool_size
        if self._is_c4:
            return self.roi_heads.res5[-1].out_channels, -(-side // 2), -(-side // 2)  # res5 has a stride of two
        shape = self.backbone.output_shape()[self.roi_heads.in_features[0]]
        return shape.channels, side, side

    @property
    def embedded_dim(self) -> int:
        """``D`` of the features that ``embed`` gives for a region."""
        dim: int = self.roi_heads.box_predictor.cls_score.in_features
        return dim

    def freeze(self) -> "Detector":
        """Switch to evaluation mode without gradients."""
        return self.requires_grad_(False).eval()

    def features(self, images: Sequence[Tensor]) -> Features:
        """Compute feature maps of RGB images ``(3, H, W)`` of any size, 0 to 255."""
        batch = ImageList.from_tensors([self._normalise(image) for image in images], self.backbone.size_divisibility)
        return Features(maps=self.backbone(batch.tensor), sizes=batch.image_sizes)

    def anchor_outputs(self, features: Features) -> tuple[list[Tensor], list[Tensor]]:
        """Compute float32 objectness logits ``(B, A)`` and deltas ``(B, A, 4)`` by level."""
        maps = [features.maps[level] for level in self.proposal_generator.in_features]
        logits, deltas = self.proposal_generator.rpn_head(maps)
        return (
            [level.permute(0, 2, 3, 1).flatten(1).float() for level in logits],
            [level.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3).float() for level in deltas],
        )

    def propose(self, features: Features) -> list[Proposals]:
        """Propose regions in each image, without gradients; the mode decides how many are kept."""
        logits, deltas = self.anchor_outputs(features)
        proposals = self._propose(features, self._anchors(features), logits, deltas)
        return [Proposals(boxes=each.proposal_boxes.tensor, objectness=each.objectness_logits) for each in proposals]

    def pool(self, features: Features, boxes: Sequence[Tensor]) -> Tensor:
        """Pool a map for each region, ``(sum N, C, 7, 7)``: res5 output on C4, else the pooled level."""
        # Region coordinates need float32; under autocast the pooler would round them to the maps' precision.
        maps = [features.maps[level].float() for level in self.roi_heads.in_features]
        regions = [Boxes(each) for each in boxes]
        if self._is_c4:
            return self.roi_heads.res5(self.roi_heads.pooler(maps, regions))  # type: ignore[no-any-return]
        return self.roi_heads.box_pooler(maps, regions)  # type: ignore[no-any-return]

    def embed(self, pooled: Tensor, draws: Sequence[tuple[int, int]] = ()) -> Tensor:
        """Embed pooled maps as ``(n, D)``: spatial mean on C4, else the output of the two-layer head.

        Args:
            pooled: Maps ``(n, C, 7, 7)``.
            draws: Regions of each image in turn and the seed of their dropout, where the head has any and trains;
                torch's state if empty.
        """
        if self._is_c4:
            return pooled.mean(dim=(2, 3))
        if isinstance(self.roi_heads.box_head, DropoutHead):
            self.roi_heads.box_head.draws = draws
        return self.roi_heads.box_head(pooled)  # type: ignore[no-any-return]

    def score(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Compute float32 class logits ``(n, classes + 1)``, background last, and deltas ``(n, 4 * classes)``."""
        logits, deltas = self.roi_heads.box_predictor(embedded)
        return logits.float(), deltas.float()

    def classify(self, embedded: Tensor) -> Tensor:
        """Compute float32 class logits ``(n, classes + 1)`` as ``score`` does, with constant weights."""
        layer = self.roi_heads.box_predictor.cls_score
        return functional.linear(embedded, layer.weight.detach(), layer.bias.detach()).float()

    def decode(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode deltas of boxes ``(n, 4)`` to boxes ``(n, classes, 4)``, not clipped."""
        decoded = self.roi_heads.box_predictor.box2box_transform.apply_deltas(deltas, boxes)
        return decoded.view(len(boxes), self.num_classes, 4)  # type: ignore[no-any-return]

    def encode(self, boxes: Tensor, targets: Tensor) -> Tensor:
        """Encode boxes ``targets`` ``(n, 4)`` as deltas ``(n, 4)`` of ``boxes``; the inverse of ``decode``."""
        return self.roi_heads.box_predictor.box2box_transform.get_deltas(boxes, targets)  # type: ignore[no-any-return]

    def anchor_losses(
        self, features: Features, targets: Sequence[Targets], seeds: Sequence[int] = ()
    ) -> tuple[dict[str, Tensor], list[Proposals]]:
        """Compute the losses of the anchors alone, for methods with region losses of their own.

        Args:
            features: Of the batch.
            targets: One per image; labels are not used.
            seeds: Of anchor sampling, one per image; torch's global state if empty.

        Returns:
            ``loss_rpn_cls`` and ``loss_rpn_loc``, and the proposals of each image, to which no target is added.
        """
        self.proposal_generator.seeds = list(seeds)
        with EventStorage():
            losses, proposals = self._anchor_losses(features, _instances(targets, features.sizes))
        return losses, [
            Proposals(boxes=each.proposal_boxes.tensor, objectness=each.objectness_logits) for each in proposals
        ]

    def losses(
        self,
        features: Features,
        targets: Sequence[Targets],
        sampling: Sequence[tuple[int, int]] | None = None,
        append_truth: bool = True,
    ) -> dict[str, Tensor]:
        """Compute the four losses of Faster R-CNN as detectron2 does.

        The anchor losses are a mean over images. The region losses are a mean over all sampled regions, hence over
        images wherever each yields as many regions.

        Args:
            features: Of the batch.
            targets: One per image; an empty one makes everything background.
            sampling: Seeds of anchor and region sampling, one pair per image, the latter of dropout too; torch's global
                state if None.
            append_truth: Add the target boxes to the proposals.

        Returns:
            ``loss_rpn_cls``, ``loss_rpn_loc``, ``loss_cls``, ``loss_box_reg``.
        """
        truth = _instances(targets, features.sizes)
        self.proposal_generator.seeds = [anchor_seed for anchor_seed, _ in sampling or ()]
        self.roi_heads.seeds = [region_seed for _, region_seed in sampling or ()]
        with EventStorage():  # detectron2 counts samples into it
            losses, proposals = self._anchor_losses(features, truth)
            if append_truth:
                proposals = add_ground_truth_to_proposals(truth, proposals)
            return losses | self._region_losses(features, proposals, truth, [seed for _, seed in sampling or ()])

    def detect(self, features: Features, proposals: Sequence[Proposals] | None = None) -> list[DetectionTensors]:
        """Detect objects in each image, from its own or given proposals."""
        if proposals is None:
            proposals = self.propose(features)
        logits, deltas = self.score(self.embed(self.pool(features, [each.boxes for each in proposals])))
        return self.select(features, proposals, logits, deltas)

    def select(
        self, features: Features, proposals: Sequence[Proposals], logits: Tensor, deltas: Tensor
    ) -> list[DetectionTensors]:
        """Select detections among scored proposals: the last step of ``detect``."""
        regions = [
            Instances(size, proposal_boxes=Boxes(each.boxes), objectness_logits=each.objectness)
            for each, size in zip(proposals, features.sizes, strict=True)
        ]
        kept, places = self.roi_heads.box_predictor.inference((logits, deltas), regions)
        return [
            DetectionTensors(boxes=each.pred_boxes.tensor, scores=each.scores, labels=each.pred_classes, regions=place)
            for each, place in zip(kept, places, strict=True)
        ]

    @property
    def _is_c4(self) -> bool:
        return self.settings.neck == "c4"

    def _normalise(self, image: Tensor) -> Tensor:
        image = image.to(self.pixel_mean.device)
        if self.settings.channel_order == "bgr":
            image = image.flip(0)
        return (image - self.pixel_mean) / self.pixel_std

    def _anchors(self, features: Features) -> list[Boxes]:
        maps = [features.maps[level] for level in self.proposal_generator.in_features]
        return self.proposal_generator.anchor_generator(maps)  # type: ignore[no-any-return]

    def _propose(
        self, features: Features, anchors: list[Boxes], logits: list[Tensor], deltas: list[Tensor]
    ) -> list[Instances]:
        detached = [level.detach() for level in logits], [level.detach() for level in deltas]
        return self.proposal_generator.predict_proposals(anchors, *detached, features.sizes)  # type: ignore[no-any-return]

    def _anchor_losses(self, features: Features, truth: list[Instances]) -> tuple[dict[str, Tensor], list[Instances]]:
        anchors = self._anchors(features)
        logits, deltas = self.anchor_outputs(features)
        labels, matched = self.proposal_generator.label_and_sample_anchors(anchors, truth)
        losses = self.proposal_generator.losses(anchors, logits, labels, deltas, matched)
        return losses, self._propose(features, anchors, logits, deltas)

    def _region_losses(
        self, features: Features, proposals: list[Instances], truth: list[Instances], seeds: Sequence[int]
    ) -> dict[str, Tensor]:
        sampled = self.roi_heads.label_and_sample_proposals(proposals, truth)
        boxes = [each.proposal_boxes.tensor for each in sampled]
        draws = [(len(each), seed) for each, seed in zip(boxes, seeds, strict=False)]  # none without seeds
        predictions = self.score(self.embed(self.pool(features, boxes), draws))
        return self.roi_heads.box_predictor.losses(predictions, sampled)  # type: ignore[no-any-return]


def _instances(targets: Sequence[Targets], sizes: Sequence[tuple[int, int]]) -> list[Instances]:
    return [
        Instances(size, gt_boxes=Boxes(each.boxes), gt_classes=each.labels)
        for each, size in zip(targets, sizes, strict=True)
    ]
