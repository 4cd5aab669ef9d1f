"""A detector whose backbone is that of a classifier's bundle (``pipelines.pretrain``)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from vision_core.backbones.bundles import TrainedBackbone, load_backbone
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.errors import CheckpointError

_Form = Literal["r18", "r50", "lite0"]
_FORMS: Mapping[str, _Form] = {"resnet18": "r18", "resnet50": "r50", "lite0": "lite0"}
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


def start_from_classifier(
    path: Path, classes: tuple[str, ...], settings: DetectorSettings | None
) -> tuple[Detector, tuple[str, ...]]:
    """A detector with the bundle's backbone and untrained heads, and notes on what the bundle has set.

    Args:
        path: The classifier's bundle.
        classes: Of the detector.
        settings: Its other settings; a feature pyramid if None. The bundle decides backbone, stride layout, channel
            order, mean and deviation.

    Raises:
        CheckpointError: As for ``load_backbone``; or there is no detector on this backbone.
        ConfigError: The settings do not fit the backbone.
    """
    found = load_backbone(path)
    chosen = detector_settings(path, found, settings or _PYRAMID)
    detector = Detector(chosen, classes)
    count = _fill(detector, found)
    return detector, (
        f"Backbone: {found.spec.name} of {found.card.identity()}, {count} tensors; the heads are untrained.",
        f"Set by the bundle: detector.backbone={chosen.backbone}, stride in the 3x3 convolution, "
        f"{chosen.channel_order.upper()}, mean {_rounded(chosen.pixel_mean)}, deviation {_rounded(chosen.pixel_std)}.",
    )


def detector_settings(path: Path, found: TrainedBackbone, settings: DetectorSettings) -> DetectorSettings:
    """``settings`` with what the backbone at ``path`` decides.

    Raises:
        CheckpointError: There is no detector on this backbone.
    """
    if found.spec.name not in _FORMS:
        raise CheckpointError(
            f"'{path}' holds a {found.spec.name}, which has no form as a detector's backbone. "
            f"Give a bundle of {', '.join(_FORMS)}, or start another task from this one."
        )
    images = found.preprocessing.in_bytes()
    return settings.model_copy(
        update={
            "backbone": _FORMS[found.spec.name],
            "stride_in_1x1": bool(found.spec.stride_in_1x1),
            "channel_order": images.channel_order,
            "pixel_mean": images.mean,
            "pixel_std": images.std,
        }
    )


def detectron2_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision ResNet's tensors without its classifier, under the names of detectron2's ResNet."""
    return {_renamed(name): tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}


def _renamed(name: str) -> str:
    name = re.sub(r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}.", name)
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _fill(detector: Detector, found: TrainedBackbone) -> int:
    """Put the backbone's tensors in their places; returns how many."""
    own = detector.state_dict()
    placed = {name: tensor for name, tensor in _placed(detector.settings, found.tensors).items() if name in own}
    detector.load_state_dict(own | placed)
    return len(placed)


def _placed(settings: DetectorSettings, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if settings.backbone == "lite0":
        # What lies behind the last map is of the classifier alone, and finds no place.
        return {f"backbone.bottom_up.network.{name}": tensor for name, tensor in tensors.items()}
    if settings.neck == "fpn":
        return {f"backbone.bottom_up.{name}": tensor for name, tensor in detectron2_names(tensors).items()}
    return {
        f"{'roi_heads' if name.startswith('res5.') else 'backbone'}.{name}": tensor
        for name, tensor in detectron2_names(tensors).items()
    }


def _rounded(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
