"""Feature maps of a backbone, to compare with those of a detector."""

from typing import Any

from torch import Tensor, nn


def feature_maps(module: nn.Module, images: Tensor) -> dict[int, Tensor]:
    """Compute maps ``(B, C, H / stride, W / stride)`` of normalised images, by stride as in ``BackboneSpec``.

    A transformer has one, with the stride of its patches.
    """
    network: Any = module
    if hasattr(network, "patch_embed"):
        (last,) = network.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
        return {int(network.feature_info[-1]["reduction"]): last}
    strides = [int(each["reduction"]) for each in network.feature_info]
    maps = network.forward_intermediates(images, intermediates_only=True)
    return {stride: each for stride, each in zip(strides, maps, strict=True) if stride >= 4}
