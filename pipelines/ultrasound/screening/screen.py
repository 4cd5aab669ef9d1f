"""Screens: classifiers that tell whether a frame shows the organ. DenseNet-161 as published, or a smaller backbone."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipelines.ultrasound.config import LEAST_SIDE, ScreenNetwork
from vision_core.backbones.networks import LITE0_MEAN, LITE0_STD, backbone_spec, build_backbone
from vision_core.backbones.settings import BackboneName, Preprocessing
from vision_core.errors import ConfigError
from vision_core.optional import require
from vision_core.segmentation.networks import spread_of

_FIRST_STD = 0.01
_MEAN, _STD = 0.449, 0.226  # of ImageNet's grey, as published


class Screen(nn.Module):
    """Classifier of frames.

    The published head works on a last map of one pixel alone; here a ReLU and a mean over the map come before it, so
    that any size from 29 pixels works, with as many parameters.

    Args:
        settings: Network.
        rules: Preprocessing of the RGB network that it starts from; None: the settings' own network and grey.

    Attributes:
        settings: Network.
        rules: Preprocessing, from 0 to 255, of a network for RGB; None for the published one, which is for grey.
        mean: ``(channels, 1, 1)``, subtracted from frames from 0 to 1.
        std: Their divisor.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: ScreenNetwork, rules: Preprocessing | None = None) -> None:
        super().__init__()
        self.settings = settings
        is_grey = settings.network == "densenet161" and rules is None
        self.rules = None if is_grey else (rules or _rules_of(settings)).in_bytes()
        self.network = _densenet161() if is_grey else screen_backbone(settings.network)
        mean, std = (self.rules.mean, self.rules.std) if self.rules else ((255 * _MEAN,), (255 * _STD,))
        for name, values in (("mean", mean), ("std", std)):  # moved with the network, and no part of its weights
            self.register_buffer(name, torch.tensor(values)[:, None, None] / 255, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Compute the logits ``(B,)`` of frames ``(B, 1, H, W)`` from 0 to 1.

        Raises:
            ConfigError: A side is shorter than 29 pixels.
        """
        height, width = frames.shape[-2:]
        if min(height, width) < LEAST_SIDE:
            raise ConfigError(
                f"The screen needs frames of {LEAST_SIDE} pixels a side, found '{height} x {width}'. Set its side_px."
            )
        logits: Tensor = self.network((frames - self.mean) / self.std)  # grey is repeated for RGB: (B, 3, H, W)
        return logits[:, 0]

    def with_features(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits ``(B,)``, and the features ``(B, D)`` of ``spread_of`` of all scales but the last.

        The last scale knows little but whether the organ is there; the ones before know what a frame looks like.
        """
        network: Any = self.network
        views = (frames - self.mean) / self.std
        if self.rules is not None:
            views = views.expand(-1, 3, -1, -1)
            last, maps = network.forward_intermediates(views)
            logits: Tensor = network.forward_head(last)
            return logits[:, 0], spread_of(maps[:-1])
        maps = []
        for name, layer in network.features.named_children():
            views = layer(views)
            if name.startswith("transition"):
                maps.append(views)
        logits = network.class_layers(views)
        return logits[:, 0], spread_of(maps)


def screen_backbone(name: BackboneName) -> nn.Module:
    """Build a backbone with one output, whose first weights are small.

    The usual weights of EfficientNet's last layer grow as its outputs become fewer: with one output, the first logits
    are far from 0 and the first steps undo what the network has learned before.
    """
    network = build_backbone(name, 1)
    head: Any = network.get_submodule(backbone_spec(name).classifier)
    nn.init.normal_(head.weight, std=_FIRST_STD)
    nn.init.zeros_(head.bias)
    return network


def fold_norms(network: nn.Module) -> None:
    """Fold the norms of a network in inference mode into the convolutions right before them, in place.

    A norm that is called with an activation of its own, as timm's are, leaves that activation behind.
    """
    for parent in network.modules():
        for (_, before), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(before, norm)
                before.weight, before.bias = fused.weight, fused.bias
                setattr(parent, name, getattr(norm, "act", nn.Identity()))


def _rules_of(settings: ScreenNetwork) -> Preprocessing:
    if settings.network == "lite0":
        return Preprocessing(values="0 to 255", mean=LITE0_MEAN, std=LITE0_STD)
    return Preprocessing(mean=(_MEAN,) * 3, std=(_STD,) * 3)


def _densenet161() -> nn.Module:
    nets = require("monai.networks.nets", "the published screen is built from it")
    network: nn.Module = nets.DenseNet(
        spatial_dims=2, in_channels=1, out_channels=1, init_features=96, growth_rate=48, block_config=(6, 12, 36, 24)
    )
    return network
