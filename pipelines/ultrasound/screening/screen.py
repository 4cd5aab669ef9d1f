"""Screens: classifiers that tell whether a frame shows the organ. DenseNet-161 as published, or a smaller backbone."""

import torch
from torch import Tensor, nn

from pipelines.ultrasound.config import LEAST_SIDE, ScreenNetwork
from vision_core.backbones.networks import LITE0_MEAN, LITE0_STD, build_backbone
from vision_core.backbones.settings import Preprocessing
from vision_core.errors import ConfigError
from vision_core.optional import require

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
        self.network = _densenet161() if is_grey else build_backbone(settings.network, 1)
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


def scores(screen: Screen, frames: Tensor) -> Tensor:
    """Compute the probability ``(B,)`` of each frame that it shows the organ, in float32."""
    with torch.inference_mode():
        logits: Tensor = screen(frames)
    return logits.float().sigmoid()
