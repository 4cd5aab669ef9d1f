"""VGG-16 as the backbone of a detector, and the box head of its two fully connected layers.

Source: arXiv 1409.1556, as papers of domain adaptation use it: the maps of ``conv5_3`` at stride 16, regions of
7 x 7, and ``fc6`` and ``fc7`` with dropout.
"""

from collections.abc import Sequence

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.roi_heads.box_head import ROI_BOX_HEAD_REGISTRY, FastRCNNConvFCHead
from torch import Tensor, nn
from torch.nn import functional

from vision_core.randomness import key

LEVEL = "conv5"
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # widths of the convolutions
_DROPOUT = 0.5


class Vgg16(Backbone):
    """VGG-16 up to ``conv5_3``, without its last pooling: one map of 512 channels at stride 16.

    The layers have torchvision's places, so that its weights and those converted from Caffe fit: ``features.0`` is
    ``conv1_1``, ``features.28`` is ``conv5_3``.

    Args:
        freeze_at: Stages from the first on that do not train: 2 freezes ``conv1`` and ``conv2``.
    """

    def __init__(self, freeze_at: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, num_frozen = 3, 0
        for stage, widths in enumerate(_STAGES, start=1):
            if layers:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            if stage <= freeze_at:
                num_frozen = len(layers)
        self.features = nn.Sequential(*layers)
        for each in self.features:
            if isinstance(each, nn.Conv2d) and each.bias is not None:
                nn.init.kaiming_normal_(each.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(each.bias)
        self.features[:num_frozen].requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the map of normalised ``(B, 3, H, W)`` images: ``(B, 512, H // 16, W // 16)``."""
        return {LEVEL: self.features(images)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Describe the map."""
        return {LEVEL: ShapeSpec(channels=_STAGES[-1][-1], stride=16)}


def convolutions() -> dict[str, int]:
    """List the convolutions by Caffe's names, with their places in ``Vgg16.features``."""
    places, place = {}, 0
    for stage, widths in enumerate(_STAGES, start=1):
        for number in range(1, len(widths) + 1):
            places[f"conv{stage}_{number}"] = place
            place += 2  # its activation
        place += 1  # the pooling behind a stage
    return places


@ROI_BOX_HEAD_REGISTRY.register()
class DropoutHead(FastRCNNConvFCHead):
    """Fully connected layers, each followed by an activation and, in training, by dropout.

    Attributes:
        draws: Regions of each image in turn, and the seed of their dropout, for the next call alone. A seed drops the
            same numbers in any process, on any device and beside any other image; empty: torch's state drops.
    """

    draws: Sequence[tuple[int, int]] = ()

    def forward(self, maps: Tensor) -> Tensor:
        """Embed pooled maps ``(n, C, 7, 7)`` as ``(n, D)``."""
        draws, self.draws = self.draws, ()
        for place, layer in enumerate(self):
            maps = layer(maps)
            if isinstance(layer, nn.ReLU) and self.training:
                maps = _drop(maps, draws, place) if draws else functional.dropout(maps, _DROPOUT)
        return maps


def _drop(rows: Tensor, draws: Sequence[tuple[int, int]], place: int) -> Tensor:
    kept = torch.cat(
        [
            torch.rand(count, rows.shape[1], generator=torch.Generator().manual_seed(key("dropout", seed, place)))
            for count, seed in draws
        ]
    )
    mask = (kept >= _DROPOUT).to(rows.device, non_blocking=True)
    return rows * mask / (1 - _DROPOUT)
