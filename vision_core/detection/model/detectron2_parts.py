"""Modules of detectron2, built from our settings, with sampling by key."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads.roi_heads import Res5ROIHeads, StandardROIHeads
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn

from vision_core.backbones.networks import lite0_features
from vision_core.detection.model.anchors import TorchvisionAnchors
from vision_core.detection.model.vgg import LEVEL, DropoutHead, Vgg16
from vision_core.detection.settings import DetectorSettings
from vision_core.errors import ConfigError

_DEPTH = {"r18": 18, "r34": 34, "r50": 50, "r101": 101}
_STAGES = ["res2", "res3", "res4", "res5"]
_PYRAMID = ["p2", "p3", "p4", "p5", "p6"]
# Keys that detectron2's own modules follow at inference, with their values (none: any).
_OTHER_KEYS: dict[str, tuple[object, ...]] = {
    "MODEL.RESNETS.NORM": ("GN",),
    "MODEL.FPN.NORM": ("GN",),
    "MODEL.FPN.FUSE_TYPE": ("avg",),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": (),
    "MODEL.ANCHOR_GENERATOR.NAME": (TorchvisionAnchors.__name__,),
    "MODEL.ANCHOR_GENERATOR.OFFSET": (),
    "MODEL.RPN.BBOX_REG_WEIGHTS": (),
    "MODEL.ROI_HEADS.IN_FEATURES": (),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlign", "ROIPool"),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (),
    "MODEL.ROI_BOX_HEAD.NUM_FC": (),
    "MODEL.ROI_BOX_HEAD.NUM_CONV": (),
    "MODEL.ROI_BOX_HEAD.CONV_DIM": (),
    "MODEL.ROI_BOX_HEAD.NORM": ("GN",),
}


def build_parts(settings: DetectorSettings, num_classes: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Build backbone, proposal generator and region heads, randomly initialised.

    Raises:
        ConfigError: Backbone, neck and anchors do not fit each other.
    """
    problems = _incompatibilities(settings)
    if problems:
        raise ConfigError(problems)
    config = detectron2_config(settings, num_classes)
    backbone: Backbone
    if settings.backbone in _OURS:
        backbone = _OURS[settings.backbone](settings.freeze_at)
    else:
        backbone = build_resnet_backbone(config, ShapeSpec(channels=3))
    heads: type[nn.Module] = KeyedRes5Heads if settings.neck == "c4" else KeyedStandardHeads
    if settings.neck == "fpn":
        pyramid = config.MODEL.FPN
        backbone = FPN(
            *(backbone, pyramid.IN_FEATURES, pyramid.OUT_CHANNELS),
            **{"norm": pyramid.NORM, "top_block": LastLevelMaxPool(), "fuse_type": pyramid.FUSE_TYPE},
        )
    shape = backbone.output_shape()
    return backbone, KeyedRPN(config, shape), heads(config, shape)


def detectron2_config(settings: DetectorSettings, num_classes: int) -> CfgNode:
    """Write the settings as a detectron2 configuration (version 2)."""
    config = get_cfg()
    values = _config_values(settings, num_classes) | {
        name: _as_list(value) for name, value in settings.other_keys or ()
    }
    config.merge_from_list([part for pair in values.items() for part in pair])
    return config


def builds(name: str, value: object) -> bool:
    """Check whether a key of detectron2 may stand in ``other_keys`` with this value."""
    return name in _OTHER_KEYS and (not _OTHER_KEYS[name] or value in _OTHER_KEYS[name])


def sample_labels(
    labels: Tensor, count: int, positive_fraction: float, background: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Sample positives up to their largest share, then negatives up to ``count``; return their indices.

    The permutations are drawn on the CPU, so that every device samples the same.

    Args:
        labels: ``(N,)`` int64; -1 is left out.
        count: Samples in total, fewer where there are not enough.
        positive_fraction: Largest share of positives.
        background: The label of negatives; any other that is not -1 is positive.
        generator: Where the draws come from; torch's global one if None.
    """
    masks = torch.stack([(labels != -1) & (labels != background), labels == background])
    counts: list[int] = masks.sum(dim=1).tolist()  # both at once: the host waits for the device
    positive, negative = (
        torch.nonzero_static(mask, size=size).squeeze(1) for mask, size in zip(masks, counts, strict=True)
    )
    num_positive = min(counts[0], int(count * positive_fraction))
    first = torch.randperm(counts[0], generator=generator)[:num_positive]
    second = torch.randperm(counts[1], generator=generator)[: count - num_positive]
    first, second = (drawn.to(labels.device, non_blocking=True) for drawn in (first, second))
    return positive[first], negative[second]


class _KeyedSampling:
    """Sampling from seeds set before the call, one per image in order; without them, from torch's state."""

    seeds: Sequence[int] = ()

    def _next_generator(self) -> torch.Generator | None:
        if not self.seeds:
            return None
        seed, *self.seeds = self.seeds
        return torch.Generator().manual_seed(seed)


class KeyedRPN(_KeyedSampling, RPN):
    """Region proposal network that samples anchors by key."""

    def _subsample_labels(self, label: Tensor) -> Tensor:
        positive, negative = sample_labels(
            label, self.batch_size_per_image, self.positive_fraction, 0, self._next_generator()
        )
        sampled = torch.full_like(label, -1)
        sampled[positive] = 1
        sampled[negative] = 0
        return sampled


class _KeyedRegionSampling(_KeyedSampling):
    num_classes: int
    batch_size_per_image: int
    positive_fraction: float

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        labels = torch.full_like(matched_idxs, self.num_classes)
        if len(gt_classes):
            labels = torch.where(matched_labels == 1, gt_classes[matched_idxs], labels)
            labels[matched_labels == -1] = -1
        sampled = torch.cat(
            sample_labels(
                labels, self.batch_size_per_image, self.positive_fraction, self.num_classes, self._next_generator()
            )
        )
        return sampled, labels[sampled]


class KeyedRes5Heads(_KeyedRegionSampling, Res5ROIHeads):
    """C4 region head that samples proposals by key."""


class KeyedStandardHeads(_KeyedRegionSampling, StandardROIHeads):
    """Pyramid region head that samples proposals by key."""


class Lite0(Backbone):
    """EfficientNet-Lite0 with frozen normalisation as a detectron2 backbone, ``res2`` to ``res5``."""

    def __init__(self, freeze_at: int) -> None:
        super().__init__()
        # detectron2's own conversion would drop the activation inside timm's normalisation layers.
        self.network = freeze_batch_norm_2d(lite0_features())  # type: ignore[no-untyped-call]
        network: Any = self.network
        block_ends = (0, 1, 2, 3, 5, 7)  # blocks that make up the first 0 to 5 stages (strides -, 2, 4, 8, 16, 32)
        frozen = [network.conv_stem, *network.blocks[: block_ends[freeze_at]]] if freeze_at else []
        for module in frozen:
            module.requires_grad_(False)
        info: Any = self.network.feature_info
        self._out_features = list(_STAGES)
        self._out_feature_channels = dict(zip(_STAGES, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(_STAGES, info.reduction(), strict=True))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute feature maps by stage of normalised ``(B, 3, H, W)`` images."""
        return dict(zip(_STAGES, self.network(images), strict=True))


_OURS: Mapping[str, Callable[[int], Backbone]] = {"lite0": Lite0, "vgg16": Vgg16}


def _incompatibilities(settings: DetectorSettings) -> list[str]:
    problems = []
    if settings.backbone == "vgg16" and settings.neck != "none":
        problems.append(
            f"detector.neck: 'vgg16' has no {settings.neck}; its head takes the last map. Set detector.neck=none."
        )
    elif settings.neck == "none" and settings.backbone != "vgg16":
        problems.append(
            f"detector.neck: '{settings.backbone}' needs a neck. Set detector.neck=fpn, or c4 for r50 and r101."
        )
    elif settings.neck == "c4" and settings.backbone not in {"r50", "r101"}:
        problems.append(
            f"detector.backbone: '{settings.backbone}' has no c4 head. Use r50 or r101, or set detector.neck=fpn."
        )
    levels = len(_PYRAMID) if settings.neck == "fpn" else 1
    if len(settings.anchor_sizes) not in {1, levels}:
        problems.append(
            f"detector.anchor_sizes: {len(settings.anchor_sizes)} lists for {levels} feature levels. "
            f"Give one list for all levels, or {levels}."
        )
    problems += [
        f"detector.other_keys: {name} '{value}' is not built here. Remove it; import-weights sets this list."
        for name, value in settings.other_keys or ()
        if not builds(name, value)
    ]
    return problems


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _config_values(settings: DetectorSettings, num_classes: int) -> dict[str, Any]:
    has_pyramid = settings.neck == "fpn"
    levels = {"fpn": _PYRAMID, "c4": ["res4"], "none": [LEVEL]}[settings.neck]
    return {
        "INPUT.FORMAT": settings.channel_order.upper(),
        "INPUT.MIN_SIZE_TEST": settings.shortest_edge_px,
        "INPUT.MAX_SIZE_TEST": settings.longest_edge_px,
        "MODEL.PIXEL_MEAN": list(settings.pixel_mean),
        "MODEL.PIXEL_STD": list(settings.pixel_std),
        "MODEL.BACKBONE.NAME": {"fpn": "build_resnet_fpn_backbone", "c4": "build_resnet_backbone", "none": "Vgg16"}[
            settings.neck
        ],
        "MODEL.BACKBONE.FREEZE_AT": settings.freeze_at,
        "MODEL.RESNETS.DEPTH": _DEPTH.get(settings.backbone, 50),
        "MODEL.RESNETS.STRIDE_IN_1X1": settings.stride_in_1x1,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64 if settings.backbone in {"r18", "r34"} else 256,
        "MODEL.RESNETS.OUT_FEATURES": _STAGES if has_pyramid else levels,
        "MODEL.FPN.IN_FEATURES": _STAGES if has_pyramid else [],
        "MODEL.FPN.OUT_CHANNELS": settings.fpn_channels,
        "MODEL.ANCHOR_GENERATOR.SIZES": [list(sizes) for sizes in settings.anchor_sizes],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [list(settings.anchor_ratios)],
        "MODEL.RPN.IN_FEATURES": levels,
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": settings.rpn_batch,
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": settings.rpn_pre_nms_train,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": settings.rpn_post_nms_train,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": settings.rpn_pre_nms_test,
        "MODEL.RPN.POST_NMS_TOPK_TEST": settings.rpn_post_nms_test,
        "MODEL.RPN.NMS_THRESH": settings.rpn_nms,
        "MODEL.RPN.SMOOTH_L1_BETA": settings.box_smooth_l1_beta,
        "MODEL.ROI_HEADS.NAME": "Res5ROIHeads" if settings.neck == "c4" else "StandardROIHeads",
        "MODEL.ROI_HEADS.NUM_CLASSES": num_classes,
        "MODEL.ROI_HEADS.IN_FEATURES": levels[:4],
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": settings.roi_batch,
        "MODEL.ROI_HEADS.POSITIVE_FRACTION": settings.roi_positive_fraction,
        # Detector.losses appends boxes itself, call by call.
        "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": settings.test_score,
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": settings.test_nms,
        "MODEL.ROI_BOX_HEAD.NAME": DropoutHead.__name__ if settings.backbone == "vgg16" else "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
        "MODEL.ROI_BOX_HEAD.FC_DIM": settings.head_channels,
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": settings.pool_size,
        "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": settings.box_smooth_l1_beta,
        "TEST.DETECTIONS_PER_IMAGE": settings.test_detections,
    }
