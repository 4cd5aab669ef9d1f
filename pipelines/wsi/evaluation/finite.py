"""Outputs that are not finite: whether the features are at fault, or the weights."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipelines.wsi.features.bags import Tiles, tile_chunks
from vision_core.errors import InputError, NotFiniteError

_LARGEST = float(torch.finfo(torch.float16).max)  # no encoder of tiles comes near it


def require_finite(output: Tensor, network: Callable[[Tiles], Tensor], features: Tiles, slide: str) -> Tensor:
    """Return a finite output unchanged.

    Args:
        output: Output of the network for the features.
        network: Computes an output of a bag ``(N, D)``.
        features: Bag of finite numbers ``(N, D)``.
        slide: Name of the slide.

    Raises:
        InputError: The features are so large that the network, which is sound, has no finite output for them.
        NotFiniteError: The weights are at fault.
    """
    if output.isfinite().all():
        return output
    largest = max(float(part.abs().max()) for part in tile_chunks(features))
    if (
        largest > _LARGEST
        and network(np.concatenate([part.numpy() / largest for part in tile_chunks(features)])).isfinite().all()
    ):
        raise InputError(f"'{slide}': its features reach {largest:.3g}, no encoder's do. Extract them again.")
    raise NotFiniteError(f"slide '{slide}'")
