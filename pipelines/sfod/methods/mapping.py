"""The mapping network of WSCoL, into the space in which regions of both views are clustered and contrasted.

Source: arXiv 2410.05557 and the behaviour of the code released with its third version. Symbols: ``A`` the map of a
region, ``h`` the hidden features, ``g`` the projection; ``M`` is the network.
"""

import math

from torch import Tensor, nn
from torch.nn import functional

MAP_SIDE = 7  # three 3x3 convolutions without padding leave one pixel
_CHANNELS, _WIDTH, _HIDDEN, _DIM = 2048, 1024, 2048, 512
_MANY_CHANNELS = 1024
# A frozen normalisation of weight 1, bias 0, mean 0 and variance 1 does nothing but this.
_FROZEN_NORM = 1 / math.sqrt(1 + 1e-5)


class MappingNetwork(nn.Module):
    """Mapping network ``M``: three convolutions and three linear layers, trained with the student.

    On the published detector the maps have 2048 channels, the convolutions 1024, ``h`` 2048 and ``g`` 512. For maps of
    ``C`` channels all widths are scaled by ``C / 2048``, but for that of ``h``: the detector's own box predictor reads
    it in place of its features. It is never averaged, and not needed after training.

    Args:
        channels: ``C`` of the maps.
        hidden: Width of ``h``, that of the features of the box predictor; ``C`` if None, as on the published detector.
        dim: Width of ``g`` where ``C`` is 2048.
    """

    def __init__(self, channels: int = _CHANNELS, hidden: int | None = None, dim: int = _DIM) -> None:
        super().__init__()
        width, first, self.dim = (max(1, round(each * channels / _CHANNELS)) for each in (_WIDTH, _HIDDEN, dim))
        self.channels, self.hidden_dim = channels, hidden or channels
        self.convolutions = nn.ModuleList(nn.Conv2d(each, width, kernel_size=3) for each in (channels, width, width))
        self.linear = nn.Linear(width, first)
        self.hidden_layer = nn.Linear(first, self.hidden_dim)
        self.projection = nn.Linear(self.hidden_dim, self.dim)

    def forward(self, maps: Tensor) -> Tensor:
        """Map regions ``(n, C, 7, 7)`` to ``g`` ``(n, dim)``."""
        return self.project(self.hidden(maps))

    def hidden(self, maps: Tensor) -> Tensor:
        """Map regions ``(n, C, 7, 7)`` to ``h`` ``(n, hidden)``, before its activation."""
        for convolution in self.convolutions:
            maps = (_convolved(maps, convolution) * _FROZEN_NORM).relu()
        found: Tensor = self.hidden_layer(self.linear(maps.flatten(1)).relu())
        return found

    def project(self, hidden: Tensor) -> Tensor:
        """Project ``h`` ``(n, hidden)`` to ``g`` ``(n, dim)``."""
        found: Tensor = self.projection(hidden.relu())
        return found

    def hidden_parameters(self) -> list[nn.Parameter]:
        """List the parameters that ``h`` depends on: all but those of the projection."""
        layers: list[nn.Module] = [*self.convolutions, self.linear, self.hidden_layer]
        return [parameter for layer in layers for parameter in layer.parameters()]


def _convolved(maps: Tensor, layer: nn.Module) -> Tensor:
    """Convolve ``(n, C, H, W)`` without padding; on a CPU, where there are many channels, as one product of matrices.

    Of maps as small and wide as those of the published detector that takes two thirds of the time of the library's
    convolution, and half of it backwards; of narrow ones it takes longer.
    """
    if maps.device.type != "cpu" or maps.shape[1] < _MANY_CHANNELS:
        found: Tensor = layer(maps)
        return found
    weight, bias = dict(layer.named_parameters()).values()
    windows = maps.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 1, 4, 5)  # (n, H - 2, W - 2, C, 3, 3)
    count, height, width = windows.shape[:3]
    rows = windows.reshape(count * height * width, weight[0].numel())
    return functional.linear(rows, weight.flatten(1), bias).view(count, height, width, len(weight)).permute(0, 3, 1, 2)
