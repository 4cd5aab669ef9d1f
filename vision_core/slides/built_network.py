"""A network ready to encode, with what it expects of its input; apart from the libraries that networks come from."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Built:
    """A network and what it expects.

    Attributes:
        name: As the settings have it.
        network: From normalised images ``(B, 3, H, W)`` to ``(B, D)``.
        weights: sha256 of the file that its weights came from.
        mean: Subtracted, per channel in the order of ``channels``, of values from 0 to 255; ImageNet's unless given.
        std: Divides, likewise.
        channels: Order of the channels.
        mpp: Microns per pixel of the tiles that it was trained on, where published.
    """

    name: str
    network: nn.Module
    weights: str
    mean: Colour = (123.675, 116.28, 103.53)
    std: Colour = (58.395, 57.12, 57.375)
    channels: Literal["rgb", "bgr"] = "rgb"
    mpp: float | None = None
