"""Encoder networks by name, with local weights and preprocessing; nothing is downloaded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from vision_core.assets import lite0_weights
from vision_core.backbones.bundles import load_backbone
from vision_core.backbones.networks import LITE0_MEAN, LITE0_STD, build_backbone, lite0_imagenet
from vision_core.bundles.card import WEIGHTS_FILE
from vision_core.errors import ConfigError
from vision_core.files import sha256
from vision_core.slides.encoders.encoder import Colour, Encoder, EncoderNetwork, Precision
from vision_core.slides.encoders.published import PUBLISHED, build_published, own_names
from vision_core.slides.encoders.weights import fill, read_tensors, weights_file
from vision_core.slides.settings import EncoderSettings

_LITE0_CLASSIFIER = ("classifier.",)


def build_encoder(
    settings: EncoderSettings, device: torch.device | None = None, precision: Precision = "auto"
) -> Encoder:
    """Build the encoder that the settings name.

    Args:
        settings: Name, local weights, input size.
        device: The CPU by default.
        precision: As for ``Encoder``.

    Raises:
        ConfigError: The name is not known, needs weights of the user, or cannot take the input size.
        CheckpointError: The weights are damaged, unsafe, or of another network.
    """
    return Encoder(_build_network(settings), settings.input_px, device, precision)


def _build_network(settings: EncoderSettings) -> EncoderNetwork:
    library, _, architecture = settings.name.partition(":")
    if architecture and library in _LIBRARIES:
        return _LIBRARIES[library](architecture, settings)
    if settings.name in PUBLISHED:
        return _published(settings)
    if settings.name not in _OWN:
        known = ", ".join([*_OWN, "timm:NAME", "torchvision:NAME", *PUBLISHED])
        raise ConfigError(f"encoder.name: '{settings.name}' is not known. Give one of {known}.")
    return _OWN[settings.name](settings)


def _lite0(settings: EncoderSettings) -> EncoderNetwork:
    """Build EfficientNet-Lite0 up to the 1280 pooled features that its ImageNet classifier reads.

    The map of 320 channels before the last convolution is a bottleneck without activation.
    """
    network = build_backbone("lite0", 0)
    path = weights_file(settings.weights) if settings.weights else lite0_weights()
    tensors = read_tensors(path) if settings.weights else lite0_imagenet()
    fill(network, tensors, path, _LITE0_CLASSIFIER)
    return EncoderNetwork(name=settings.name, network=network, weights=sha256(path), mean=LITE0_MEAN, std=LITE0_STD)


def _resnet50(settings: EncoderSettings) -> EncoderNetwork:
    """Build ResNet-50 without its fourth stage, 1024 features; timm's entry names are torchvision's."""
    path = _weights(settings, _ask_timm("resnet50.tv_in1k"))
    tensors = read_tensors(path)
    network: Any = timm.create_model("resnet50", pretrained=False, num_classes=0)
    network.layer4 = nn.Identity()
    fill(network, tensors, path, ("layer4.", "fc."))
    return EncoderNetwork(name=settings.name, network=network, weights=sha256(path))


def _published(settings: EncoderSettings) -> EncoderNetwork:
    about = PUBLISHED[settings.name]
    path = _weights(settings, f"Ask its authors for them: {about.source}.")
    tensors = own_names(settings.name, read_tensors(path))
    network = build_published(settings.name)
    fill(network, tensors, path, about.dropped)
    built = EncoderNetwork(name=settings.name, network=network, weights=sha256(path), mpp=about.mpp)
    return replace(built, mean=_in_bytes(about.mean), std=_in_bytes(about.std))


def _timm(architecture: str, settings: EncoderSettings) -> EncoderNetwork:
    if not timm.is_model(architecture.partition(".")[0]) or ":" in architecture:
        raise ConfigError(f"encoder.name: timm has no '{architecture}'. timm.list_models() lists its names.")
    path = _weights(settings, _ask_timm(architecture))
    network: Any = timm.create_model(architecture, pretrained=False, num_classes=0)
    pretrained = network.pretrained_cfg
    if pretrained.get("fixed_input_size") and pretrained["input_size"][-1] != settings.input_px:
        network = timm.create_model(architecture, pretrained=False, num_classes=0, img_size=settings.input_px)
    classifier = pretrained.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    fill(network, read_tensors(path), path, tuple(f"{name}." for name in names))
    built = EncoderNetwork(name=settings.name, network=network, weights=sha256(path))
    return replace(built, mean=_in_bytes(pretrained["mean"]), std=_in_bytes(pretrained["std"]))


def _torchvision(architecture: str, settings: EncoderSettings) -> EncoderNetwork:
    from torchvision import models

    if architecture not in models.list_models(module=models):
        raise ConfigError(f"encoder.name: torchvision has no classifier '{architecture}'. Give a name of its models.")
    path = _weights(settings, _ASK_TORCHVISION.format(architecture))
    network = models.get_model(architecture, weights=None)
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ConfigError(f"encoder.name: '{architecture}' ends in no linear layer to be left out. Choose another.")
    network.set_submodule(layers[-1], nn.Identity())
    fill(network, read_tensors(path), path, (f"{layers[-1]}.",))
    return EncoderNetwork(name=settings.name, network=network, weights=sha256(path))


def _bundle(settings: EncoderSettings) -> EncoderNetwork:
    if settings.weights is None:
        raise ConfigError("encoder.weights: the bundle is missing. Give one that pipelines.pretrain train wrote.")
    trained = load_backbone(settings.weights)
    preprocessing = trained.preprocessing.in_bytes()
    return EncoderNetwork(
        name=settings.name,
        network=trained.build(),
        weights=trained.card.hashes[WEIGHTS_FILE],
        mean=preprocessing.mean,
        std=preprocessing.std,
        channels=preprocessing.channel_order,
    )


def _weights(settings: EncoderSettings, remedy: str) -> Path:
    if settings.weights is None:
        raise ConfigError(
            f"encoder.weights: '{settings.name}' needs a local file of weights; none is downloaded. {remedy}"
        )
    return weights_file(settings.weights)


def _ask_timm(architecture: str) -> str:
    return (
        'On a machine with internet access: python -c "import timm; from safetensors.torch import save_file as s; '
        f"s(timm.create_model('{architecture}', pretrained=True).state_dict(), 'weights.safetensors')\"."
    )


_ASK_TORCHVISION = (
    'On a machine with internet access: python -c "import torchvision; from safetensors.torch import save_file as s; '
    "s(torchvision.models.get_model('{}', weights='DEFAULT').state_dict(), 'weights.safetensors')\"."
)


def _in_bytes(colour: Any) -> Colour:  # noqa: ANN401 (three numbers, list or tuple)
    red, green, blue = (255 * float(value) for value in colour)
    return red, green, blue


_OWN: dict[str, Callable[[EncoderSettings], EncoderNetwork]] = {
    "lite0": _lite0,
    "resnet50": _resnet50,
    "bundle": _bundle,
}
_LIBRARIES: dict[str, Callable[[str, EncoderSettings], EncoderNetwork]] = {"timm": _timm, "torchvision": _torchvision}
