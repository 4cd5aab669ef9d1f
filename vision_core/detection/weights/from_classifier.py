"""Detectors with the backbone of a classifier's bundle (``pipelines.pretrain``)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from vision_core.backbones.bundles import TrainedBackbone, load_backbone
from vision_core.detection.model.detector import Detector
from vision_core.detection.model.vgg import convolutions
from vision_core.detection.settings import DetectorSettings
from vision_core.errors import CheckpointError

_Backbone = Literal["r18", "r50", "lite0"]
_BACKBONES: Mapping[str, _Backbone] = {"resnet18": "r18", "resnet50": "r50", "lite0": "lite0"}
_PYRAMID = DetectorSettings(
    backbone="r18", neck="fpn", pool_size=7, anchor_sizes=((32,), (64,), (128,), (256,), (512,))
)  # detectron2's own constants of a pyramid
_COUNTER = "num_batches_tracked"
# torchvision's names on the left, detectron2's on the right
_NAMES = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)


def detector_from_classifier(
    path: Path, classes: tuple[str, ...], settings: DetectorSettings | None
) -> tuple[Detector, tuple[str, ...]]:
    """Build a detector with a classifier's backbone and untrained heads, with notes.

    Args:
        path: The classifier's bundle.
        classes: Class names of the detector.
        settings: Its other settings; a feature pyramid if None. Backbone, stride layout, channel order, mean and
            deviation are those of the bundle.

    Raises:
        CheckpointError: As for ``load_backbone``; or no detector can be built on this backbone.
        ConfigError: The settings do not fit the backbone.
    """
    found = load_backbone(path)
    chosen = _detector_settings(path, found, settings or _PYRAMID)
    detector = Detector(chosen, classes)
    count = _load_tensors(detector, found)
    return detector, (
        f"Backbone: {found.spec.name} of {found.card.identity()}, {count} tensors; the heads are untrained.",
        f"Set by the bundle: detector.backbone={chosen.backbone}, stride in the 3x3 convolution, "
        f"{chosen.channel_order.upper()}, mean {_rounded(chosen.pixel_mean)}, deviation {_rounded(chosen.pixel_std)}.",
    )


def _detector_settings(path: Path, found: TrainedBackbone, settings: DetectorSettings) -> DetectorSettings:
    """Replace the settings that the backbone at ``path`` decides.

    Raises:
        CheckpointError: No detector can be built on this backbone.
    """
    if found.spec.name not in _BACKBONES:
        raise CheckpointError(
            f"'{path}' holds a {found.spec.name}, which has no form as a detector's backbone. "
            f"Give a bundle of {', '.join(_BACKBONES)}, or start another task from this one."
        )
    images = found.preprocessing.in_bytes()
    return settings.model_copy(
        update={
            "backbone": _BACKBONES[found.spec.name],
            "stride_in_1x1": bool(found.spec.stride_in_1x1),
            "channel_order": images.channel_order,
            "pixel_mean": images.mean,
            "pixel_std": images.std,
        }
    )


def detectron2_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a torchvision ResNet's tensors to those of detectron2's ResNet."""
    return {_rename(name): tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}


def vgg16_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a VGG-16, as torchvision or Caffe name them, to those of a detector with its head."""
    places = {f"features.{place}": f"backbone.features.{place}" for place in convolutions().values()}
    places |= {name: f"backbone.features.{place}" for name, place in convolutions().items()}
    for names, layer in ((("classifier.0", "fc6"), "fc1"), (("classifier.3", "fc7"), "fc2")):
        places |= dict.fromkeys(names, f"roi_heads.box_head.{layer}")
    found = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.replace("_w", ".weight").replace("_b", ".bias").rpartition(".")
        found[f"{places[layer]}.{kind}" if layer in places else name] = tensor
    return found


def _rename(name: str) -> str:
    name = re.sub(r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}.", name)
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _load_tensors(detector: Detector, found: TrainedBackbone) -> int:
    """Load the backbone's tensors and return their number."""
    own = detector.state_dict()
    placed = {name: tensor for name, tensor in _detector_names(detector.settings, found.tensors).items() if name in own}
    detector.load_state_dict(own | placed)
    return len(placed)


def _detector_names(settings: DetectorSettings, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if settings.backbone == "lite0":
        # Tensors behind the last map belong to the classifier alone; _load_tensors leaves them out.
        return {f"backbone.bottom_up.network.{name}": tensor for name, tensor in tensors.items()}
    if settings.neck == "fpn":
        return {f"backbone.bottom_up.{name}": tensor for name, tensor in detectron2_names(tensors).items()}
    return {
        f"{'roi_heads' if name.startswith('res5.') else 'backbone'}.{name}": tensor
        for name, tensor in detectron2_names(tensors).items()
    }


def _rounded(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
