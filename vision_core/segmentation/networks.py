"""Residual U-Net (Chalcroft et al., ASMUS 2021), built from MONAI's blocks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision_core.errors import ConfigError
from vision_core.optional import require
from vision_core.segmentation.settings import Segmenter

_WHY = "segmenters are built from its blocks"


class ResidualUNet(nn.Module):
    """U-Net of residual blocks for images of one channel and any size from ``least_side`` on.

    Odd sizes are padded in the decoder. The norms of a training step need more than one value a channel: two images at
    least where the image ends as one pixel at the bottom.

    Args:
        settings: Depth, width, gates.
    """

    def __init__(self, settings: Segmenter) -> None:
        super().__init__()
        self.settings = settings
        widths = [settings.first * 2**depth for depth in range(settings.layers + 1)]
        inputs = [settings.squeeze**2, *widths]
        self.encoder = nn.ModuleList(_Block(*each) for each in zip(inputs, widths[:-1], strict=False))
        self.bottom = _Block(widths[-2], widths[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in reversed(widths[:-1]))
        self.gates = nn.ModuleList(_gate(settings, width) for width in reversed(widths[:-1]))
        self.decoder = nn.ModuleList(_Block(2 * width, width) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(settings.first, settings.squeeze**2, 1)

    @property
    def least_side(self) -> int:
        """Return the smallest height and width of an image in pixels."""
        return self.settings.squeeze << self.settings.layers

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``(B, 1, H, W)`` of images ``(B, 1, H, W)``.

        The published network ends in a sigmoid; here loss and predictor apply it, since a loss is safer on logits.

        Raises:
            ConfigError: The image is smaller than ``least_side``.
        """
        size = images.shape[-2:]
        if min(size) < self.least_side:
            raise ConfigError(
                f"The segmenter halves an image {self.settings.layers} times and needs {self.least_side} pixels a "
                f"side, found '{size[0]} x {size[1]}'. Set fewer layers, or give larger images."
            )
        maps, skips = self.encode(images)
        return self.decode(maps, skips, (size[0], size[1]))

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute the maps at the bottom of images ``(B, 1, H, W)``, and what each layer hands to the decoder."""
        maps = self._squeezed(images)  # (B, squeeze², H / squeeze, W / squeeze)
        skips = []
        for block in self.encoder:
            skips.append(block(maps))
            maps = F.max_pool2d(skips[-1], 2)
        return self.bottom(maps), skips

    def decode(self, maps: Tensor, skips: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Compute logits ``(B, 1, H, W)`` of ``size`` from what ``encode`` returns."""
        for up, gate, block, skip in zip(self.up, self.gates, self.decoder, reversed(skips), strict=True):
            maps = _padded_to(up(maps), skip)
            maps = block(torch.cat([maps, gate(maps, skip)], dim=1))
        return F.pixel_shuffle(self.head(maps), self.settings.squeeze)[..., : size[0], : size[1]]

    def _squeezed(self, images: Tensor) -> Tensor:
        side = self.settings.squeeze
        if side == 1:
            return images
        height, width = images.shape[-2:]
        fitted = F.pad(images, (0, -width % side, 0, -height % side), mode="replicate")
        return F.pixel_unshuffle(fitted, side)


def spread_of(maps: Sequence[Tensor]) -> Tensor:
    """Compute mean and spread of each channel of feature maps ``(B, C, H, W)``, of all scales: ``(B, 2 sum(C))``."""
    parts = [each.float().flatten(2) for each in maps]
    return torch.cat([part for each in parts for part in (each.mean(2), each.std(2, correction=0))], dim=1)


class _Block(nn.Module):
    """Two units of convolution, ReLU and norm; the first is added to the second."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first, self.second = _unit(channels_in, channels), _unit(channels, channels)

    def forward(self, maps: Tensor) -> Tensor:
        first = self.first(maps)
        return first + self.second(first)  # type: ignore[no-any-return]


class _NoGate(nn.Module):
    def forward(self, _: Tensor, skip: Tensor) -> Tensor:
        return skip


def _unit(channels_in: int, channels: int) -> nn.Module:
    blocks = require("monai.networks.blocks", _WHY)
    unit: nn.Module = blocks.Convolution(
        2, channels_in, channels, kernel_size=3, adn_ordering="AN", act="relu", norm="batch"
    )
    return unit


def _gate(settings: Segmenter, width: int) -> nn.Module:
    """Build a gate on the skip by the decoder's map of the same width (Oktay et al., MIDL 2018)."""
    if settings.gate == "none":
        return _NoGate()
    nets = require("monai.networks.nets.attentionunet", _WHY)
    gate: nn.Module = nets.AttentionBlock(2, f_int=width, f_g=width, f_l=width)
    return gate


def _padded_to(maps: Tensor, skip: Tensor) -> Tensor:
    """Pad with zeros to the height and width of ``skip``: half before, rounded down, the rest behind."""
    height, width = skip.shape[-2] - maps.shape[-2], skip.shape[-1] - maps.shape[-1]
    return F.pad(maps, (width // 2, width - width // 2, height // 2, height - height // 2))
