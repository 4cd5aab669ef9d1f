"""Adaptation of the statistics of frozen normalisation layers to new images."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from detectron2.layers import FrozenBatchNorm2d
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional

from vision_core.errors import ConfigError

_FROZEN = (FrozenBatchNorm2d, FrozenBatchNormAct2d)


@contextmanager
def adapting_norms(network: nn.Module, passes: int = 0) -> Iterator[None]:
    """Adapt the statistics of frozen layers inside a context.

    Every forward pass normalises by its own batch and moves the statistics to the mean over all passes.

    The affine parameters stay, and so do the modules and the names in the state dict. Layers whose statistics were
    folded into the affine parameters (mean 0, variance 1: weights from Caffe2) have none to adapt and stay frozen.

    Args:
        network: The network whose frozen layers adapt.
        passes: Passes that the statistics hold already; 0 lets the first pass replace them.

    Raises:
        ConfigError: No layer has statistics to adapt.
    """
    layers = [module for module in network.modules() if isinstance(module, _FROZEN)]
    adaptable = _with_statistics(layers)
    if not adaptable:
        raise ConfigError(
            f"The detector has no normalisation statistics to adapt: {len(layers)} frozen layers, all with mean 0 and "
            "variance 1. Choose another method, or weights whose statistics were not folded into the layers."
        )
    for layer in adaptable:
        layer.forward = _CumulativeBatchNorm(layer, passes)
    try:
        yield
    finally:
        for layer in adaptable:
            del layer.forward  # uncovers the class's own, frozen forward


def norm_statistics(network: nn.Module) -> list[Tensor]:
    """Return the running means and variances of all frozen layers, not copied."""
    layers = [module for module in network.modules() if isinstance(module, _FROZEN)]
    return [cast(Tensor, each) for layer in layers for each in (layer.running_mean, layer.running_var)]


class _CumulativeBatchNorm:
    """Batch normalisation with cumulative statistics in the buffers of a frozen layer."""

    def __init__(self, layer: FrozenBatchNorm2d, passes: int) -> None:
        self.layer = layer
        self.passes = passes

    def __call__(self, maps: Tensor) -> Tensor:
        self.passes += 1
        layer = self.layer
        normalised = functional.batch_norm(
            maps,
            layer.running_mean,
            layer.running_var,
            layer.weight,
            layer.bias,
            training=True,
            momentum=1 / self.passes,
            eps=layer.eps,
        )
        # timm's layers carry their activation.
        return layer.act(normalised) if hasattr(layer, "act") else normalised


def _with_statistics(layers: Sequence[FrozenBatchNorm2d]) -> list[FrozenBatchNorm2d]:
    """Select the layers whose statistics are not those of a layer that was never trained."""
    if not layers:
        return []
    # detectron2 starts at a variance of 1 - eps. All layers are asked at once: the host waits for the answer.
    are_moved = torch.stack(
        [each.running_mean.any() | ((each.running_var - 1).abs() > 2 * each.eps).any() for each in layers]
    ).tolist()
    return [layer for layer, is_moved in zip(layers, are_moved, strict=True) if is_moved]
