"""Screens: classifiers that tell whether a frame shows the organ. DenseNet-161 as published, or a smaller backbone."""

import torch
from pydantic import Field
from torch import Tensor, nn

from vision_core.backbones.networks import LITE0_MEAN, LITE0_STD, build_backbone
from vision_core.backbones.settings import BackboneName
from vision_core.config.schema import Section
from vision_core.errors import ConfigError
from vision_core.optional import require

LEAST_SIDE = 29  # below it the published network has no pixel left
_MEAN, _STD = 0.449, 0.226  # of ImageNet's grey, as published


class ScreenNetwork(Section):
    """Settings of a screen; the defaults are the published network of 26,464,801 parameters."""

    network: BackboneName = Field("densenet161", description="Network; densenet161 is the published one, for grey.")
    side_px: int | None = Field(
        None,
        ge=LEAST_SIDE,
        le=4096,
        description="Side of the square that frames are resized to; empty: their own size.",
    )


BEDSIDE = ScreenNetwork(network="lite0", side_px=128)


class Screen(nn.Module):
    """Classifier of frames.

    The published head works on a last map of one pixel alone; here a ReLU and a mean over the map come before it, so
    that any size from 29 pixels works, with as many parameters.

    Args:
        settings: Network.
    """

    def __init__(self, settings: ScreenNetwork) -> None:
        super().__init__()
        self.settings = settings
        self.is_grey = settings.network == "densenet161"
        self.network = _densenet161() if self.is_grey else build_backbone(settings.network, 1)
        is_lite0 = settings.network == "lite0"
        self._mean = LITE0_MEAN[0] / 255 if is_lite0 else _MEAN
        self._std = LITE0_STD[0] / 255 if is_lite0 else _STD

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
        scaled = (frames - self._mean) / self._std
        logits: Tensor = self.network(scaled if self.is_grey else scaled.expand(-1, 3, -1, -1))
        return logits[:, 0]


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
