"""Conversion of torchvision's Faster R-CNN with a ResNet and a pyramid (``fasterrcnn_resnet50_fpn``).

Such a file holds weights alone. What its tensors do not say are arguments of torchvision's functions: their defaults,
or those in a YAML file. The first class of torchvision is background, which comes last here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, FiniteFloat, ValidationError
from torch import Tensor

from vision_core.config.schema import Fraction, NonNegativeFloat, PositiveFloat, Section
from vision_core.config.strict_yaml import read_yaml
from vision_core.detection.model.anchors import TorchvisionAnchors
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.detectron2_config import Architecture
from vision_core.detection.weights.from_classifier import detectron2_names
from vision_core.errors import CheckpointError

_BODY, _RPN = "backbone.body.", "rpn.head."
_EPS = 1e-5  # of detectron2's normalisation, and of torchvision's
_EPS_COCO = "258fb6c6"  # torchvision names its own file by the first digits of its SHA-256, and loads it with 0
_DEPTHS: Mapping[tuple[int, bool], Any] = {(2, False): "r18", (6, False): "r34", (6, True): "r50", (23, True): "r101"}
_LEVELS = 4  # of the backbone; the fifth is pooled
_FOREIGN = {  # parts by which other detectors of torchvision are known
    "backbone.fpn.inner_blocks.0.1.": "fasterrcnn_resnet50_fpn_v2 (normalisation in the pyramid)",
    "rpn.head.conv.1.": "fasterrcnn_resnet50_fpn_v2 (two convolutions before the anchors)",
    "roi_heads.box_head.0.": "fasterrcnn_resnet50_fpn_v2 (convolutions in the box head)",
    "backbone.body.0.": "fasterrcnn_mobilenet_v3_large_fpn",
    "head.classification_head.": "a detector of one stage, such as RetinaNet or FCOS",
}
_LAYERS = (
    (r"^backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?\.", lambda found: f"backbone.fpn_lateral{int(found[1]) + 2}."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?\.", lambda found: f"backbone.fpn_output{int(found[1]) + 2}."),
    (r"^rpn\.head\.conv(?:\.0\.0)?\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "roi_heads.box_head.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "roi_heads.box_head.fc2."),
)  # fmt: skip
_Triple = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class _Arguments(Section):
    """Arguments of torchvision's Faster R-CNN, its anchor generator and its backbone, with their defaults."""

    min_size: int = Field(800, ge=1)
    max_size: int = Field(1333, ge=16)
    image_mean: _Triple = (0.485, 0.456, 0.406)
    image_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    anchor_sizes: tuple[tuple[PositiveFloat, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    rpn_pre_nms_top_n_train: int = Field(2000, ge=1)
    rpn_pre_nms_top_n_test: int = Field(1000, ge=1)
    rpn_post_nms_top_n_train: int = Field(2000, ge=1)
    rpn_post_nms_top_n_test: int = Field(1000, ge=1)
    rpn_nms_thresh: Fraction = 0.7
    rpn_batch_size_per_image: int = Field(256, ge=1)
    box_score_thresh: Fraction = 0.05
    box_nms_thresh: Fraction = 0.5
    box_detections_per_img: int = Field(100, ge=1)
    box_batch_size_per_image: int = Field(512, ge=1)
    box_positive_fraction: Fraction = 0.25
    bbox_reg_weights: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = (10.0, 10.0, 5.0, 5.0)
    trainable_backbone_layers: int = Field(3, ge=0, le=5)
    norm_eps: NonNegativeFloat | None = None


def is_torchvision(tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether the tensors have the names of a detector of torchvision."""
    return any(name.startswith((_BODY, _RPN, "head.classification_head.")) for name in tensors)


def refuse_other_torchvision(tensors: Mapping[str, Tensor], weights: Path) -> None:
    """Refuse any torchvision detector but a Faster R-CNN with a ResNet and a plain pyramid, by name.

    Raises:
        CheckpointError: It is.
    """
    for part, kind in _FOREIGN.items():
        if any(name.startswith(part) for name in tensors):
            raise CheckpointError(
                f"'{weights}' is {kind} of torchvision, with '{part}'. A Faster R-CNN with a plain ResNet and a "
                "pyramid is taken (fasterrcnn_resnet50_fpn); this checkpoint cannot be used here."
            )


def read_torchvision(
    tensors: Mapping[str, Tensor], weights: Path, arguments: Path | None, digest: str
) -> tuple[Architecture, dict[str, Tensor]]:
    """Convert a Faster R-CNN of torchvision to the names and the order of classes of ``Detector``.

    Args:
        tensors: By torchvision's names, with a head.
        weights: Their file, for messages.
        arguments: YAML of the arguments that its model was made with (``source.config``); None: torchvision's defaults.
        digest: SHA-256 of the file.

    Returns:
        Its architecture with notes on what was assumed, and the tensors.

    Raises:
        CheckpointError: A backbone that is not built here, or arguments that do not fit.
    """
    given = _read_arguments(arguments)
    backbone = _find_backbone(tensors, weights)
    _check_anchors(tensors, weights, given)
    eps = given.norm_eps if given.norm_eps is not None else 0.0 if digest.startswith(_EPS_COCO) else _EPS
    ratios, sizes = len(given.aspect_ratios), len(given.anchor_sizes[0])
    converted = {_rename(name): tensor for name, tensor in _with_eps(tensors, eps).items()}
    _reorder_anchors(converted, ratios, sizes)
    _reorder_classes(converted)
    settings = _settings(given, backbone, converted)
    origin = f"from '{arguments}' and torchvision's defaults" if arguments else "torchvision's defaults"
    notes = (
        "torchvision: Faster R-CNN with a pyramid; class 0 is background there and comes last here",
        f"torchvision: {origin}, which the file does not hold: input, anchors, thresholds and numbers of boxes; "
        f"suppression {given.rpn_nms_thresh:g} of proposals and {given.box_nms_thresh:g} of objects, scores above "
        f"{given.box_score_thresh:g}, at most {given.box_detections_per_img} objects, box weights "
        f"{given.bbox_reg_weights}. source.config=FILE.yaml takes its arguments where they were others",
        f"torchvision: {eps:g} is added to variances; models made from torchvision's COCO weights add 0, which "
        "norm_eps: 0 in source.config says",
        "torchvision: anchors have whole corners and regions are pooled without the half pixel, as there. Images are "
        "resized in bytes and with smoothing, there without; boxes narrower than 0.01 px stay",
    )
    num_classes = len(converted["roi_heads.box_predictor.cls_score.weight"]) - 1
    return Architecture(settings=settings, num_classes=num_classes, notes=notes), converted


def _read_arguments(path: Path | None) -> _Arguments:
    if path is None:
        return _Arguments()
    try:
        return _Arguments.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            f"'{path}': {name}: {first['msg']}. For a checkpoint of torchvision it holds arguments of its model: "
            f"{', '.join(_Arguments.model_fields)}."
        ) from error


def _find_backbone(tensors: Mapping[str, Tensor], weights: Path) -> str:
    """Find the depth of the ResNet.

    Raises:
        CheckpointError: It is one that is not built here.
    """
    blocks = {found[1] for name in tensors if (found := re.match(r"backbone\.body\.layer3\.(\d+)\.", name))}
    has_bottlenecks = any(re.match(r"backbone\.body\.layer1\.0\.conv3\.", name) for name in tensors)
    width = tensors.get("backbone.body.layer1.0.conv1.weight")
    levels = sum(bool(re.fullmatch(r"backbone\.fpn\.inner_blocks\.\d(\.0)?\.weight", name)) for name in tensors)
    depth = _DEPTHS.get((len(blocks), has_bottlenecks))
    if depth is None or width is None or width.shape[0] != 64 or levels != _LEVELS:
        raise CheckpointError(
            f"'{weights}': its backbone has {len(blocks)} blocks in layer3, "
            f"{'no' if width is None else width.shape[0]} channels in the first block and {levels} levels in the "
            f"pyramid. ResNets of 18, 34, 50 and 101 layers with {_LEVELS} levels are taken (and no wide or grouped "
            "ones); this checkpoint cannot be used here."
        )
    return str(depth)


def _check_anchors(tensors: Mapping[str, Tensor], weights: Path, given: _Arguments) -> None:
    """Refuse arguments that give another number of anchors than the weights have."""
    sizes = {len(level) for level in given.anchor_sizes}
    name = "rpn.head.cls_logits.weight"
    found = len(tensors[name]) if name in tensors else 0
    asked = len(given.anchor_sizes[0]) * len(given.aspect_ratios)
    if found != asked or len(sizes) != 1 or len(given.anchor_sizes) != _LEVELS + 1:
        raise CheckpointError(
            f"'{weights}': '{name}' has {found} anchors a cell, and {len(given.anchor_sizes)} lists of sizes "
            f"{given.anchor_sizes} with ratios {given.aspect_ratios} give {asked}. Give anchor_sizes (a list for each "
            f"of {_LEVELS + 1} levels, equally long) and aspect_ratios of its anchor generator in source.config=FILE."
        )


def _with_eps(tensors: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """Scale the weights of normalisation layers, so that another eps gives the same outputs."""
    found = dict(tensors)
    if eps == _EPS:
        return found
    for name, variance in tensors.items():
        scale = name.removesuffix("running_var") + "weight"
        if name.endswith("running_var") and scale in tensors:
            factor = ((variance.double() + _EPS) / (variance.double() + eps)).sqrt()
            found[scale] = (tensors[scale].double() * factor).to(tensors[scale].dtype)
    return found


def _rename(name: str) -> str:
    if name.startswith(_BODY):
        [renamed] = detectron2_names({name.removeprefix(_BODY): torch.empty(0)}) or [name]
        return f"backbone.bottom_up.{renamed}"
    for pattern, replacement in _LAYERS:
        name = re.sub(pattern, replacement, name)
    return name


def _reorder_anchors(tensors: dict[str, Tensor], ratios: int, sizes: int) -> None:
    """Order the anchors of a cell by size and then by ratio, as here; torchvision's go by ratio and then by size."""
    order = torch.arange(ratios * sizes).view(ratios, sizes).T.flatten()
    for layer, numbers in (("objectness_logits", 1), ("anchor_deltas", 4)):
        for kind in ("weight", "bias"):
            name = f"proposal_generator.rpn_head.{layer}.{kind}"
            if name in tensors and len(tensors[name]) == numbers * len(order):
                tensors[name] = tensors[name].unflatten(0, (len(order), numbers))[order].flatten(0, 1)


def _reorder_classes(tensors: dict[str, Tensor]) -> None:
    """Put background last, and leave out its deltas."""
    for kind in ("weight", "bias"):
        scores, deltas = (f"roi_heads.box_predictor.{layer}.{kind}" for layer in ("cls_score", "bbox_pred"))
        if scores in tensors:
            tensors[scores] = tensors[scores].roll(-1, dims=0)
        if deltas in tensors:
            tensors[deltas] = tensors[deltas][4:]


def _settings(given: _Arguments, backbone: str, tensors: Mapping[str, Tensor]) -> DetectorSettings:
    def width(name: str, default: int) -> int:
        return int(tensors[name].shape[0]) if name in tensors else default

    other = {
        "MODEL.ANCHOR_GENERATOR.NAME": TorchvisionAnchors.__name__,
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": given.bbox_reg_weights,
    }
    return DetectorSettings.model_validate({
        "backbone": backbone,
        "neck": "fpn",
        "stride_in_1x1": False,
        "freeze_at": 5 - given.trainable_backbone_layers,
        "fpn_channels": width("backbone.fpn_lateral2.weight", 256),
        "head_channels": width("roi_heads.box_head.fc1.weight", 1024),
        "anchor_sizes": given.anchor_sizes,
        "anchor_ratios": given.aspect_ratios,
        "channel_order": "rgb",
        "pixel_mean": tuple(round(255 * each, 4) for each in given.image_mean),
        "pixel_std": tuple(round(255 * each, 4) for each in given.image_std),
        "shortest_edge_px": given.min_size,
        "longest_edge_px": given.max_size,
        "rpn_batch": given.rpn_batch_size_per_image,
        "rpn_pre_nms_train": given.rpn_pre_nms_top_n_train,
        "rpn_post_nms_train": given.rpn_post_nms_top_n_train,
        "rpn_pre_nms_test": given.rpn_pre_nms_top_n_test,
        "rpn_post_nms_test": given.rpn_post_nms_top_n_test,
        "rpn_nms": given.rpn_nms_thresh,
        "pool_size": 7,
        "roi_batch": given.box_batch_size_per_image,
        "roi_positive_fraction": given.box_positive_fraction,
        "box_smooth_l1_beta": 1 / 9,
        "test_score": given.box_score_thresh,
        "test_nms": given.box_nms_thresh,
        "test_detections": given.box_detections_per_img,
        "other_keys": tuple(other.items()),
    })  # fmt: skip
