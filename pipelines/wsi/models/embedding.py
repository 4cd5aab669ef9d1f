"""Embedding layer of all networks, their widest: tile features to embedded tiles.

On a CPU it processes the bag in stretches that fit the processor's cache, selects tiles without copying their
features, and keeps one byte per number for its gradient. Slopes that are not 0 or 1, as GELU's, are recomputed from the
features: one more matrix product, for a quarter of the memory.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.wsi.config import EmbeddingSettings
from pipelines.wsi.models.layers import Dropout, activation, is_sparing, keep_mask, keep_scale

_STRETCH = 1024


class Embedding(nn.Module):
    """Linear layer, activation and dropout from tile features ``(N, features)`` to embedded tiles ``(N, D)``."""

    def __init__(self, settings: EmbeddingSettings, feature_dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.linear = nn.Linear(feature_dim, settings.dim)
        self.activation = activation(settings.activation)
        self.dropout = Dropout(settings.dropout)

    def forward(self, features: Tensor, tiles: Tensor | None = None, behind: Tensor | None = None) -> Tensor:
        """Embed tiles.

        Args:
            features: ``(N, features)``.
            tiles: Indices of those to embed, in this order; None for all.
            behind: ``(k, D)`` to append to the embedded tiles, as ``torch.cat`` would, but without copying them.
        """
        if self._trains_in_stretches(features):
            weights = (self.linear.weight, self.linear.bias)
            embedded: Tensor = _Stretches.apply(features, tiles, behind, *weights, self.settings)
            return embedded
        embedded = self._embedded(features, tiles)
        return embedded if behind is None else torch.cat([embedded, behind])

    def _embedded(self, features: Tensor, tiles: Tensor | None) -> Tensor:
        if is_sparing(features):
            return self._without_gradient(features, tiles)
        return self._plain(features if tiles is None else features[tiles])

    def _trains_in_stretches(self, features: Tensor) -> bool:
        if features.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        return self.training and torch.is_grad_enabled() and not features.requires_grad

    def _plain(self, features: Tensor) -> Tensor:
        embedded: Tensor = self.dropout(self.activation(self.linear(features)))
        return embedded

    def _without_gradient(self, features: Tensor, tiles: Tensor | None) -> Tensor:
        """Embed in stretches too, so that intermediate results never exist for the whole bag."""
        count = len(features) if tiles is None else len(tiles)
        none: Tensor = self.linear(features[:0])  # of the type that autocast chooses
        embedded = none.new_empty(count, self.linear.out_features)
        for part, inputs in _stretches(features, tiles):
            embedded[part] = self._plain(inputs)
        return embedded


class _Stretches(torch.autograd.Function):
    """Embedding layer in training; features take no gradient."""

    @staticmethod
    def forward(  # noqa: PLR0913 (torch passes them one by one)
        ctx: Any,  # noqa: ANN401 (torch does not type what a context holds)
        features: Tensor,
        tiles: Tensor | None,
        behind: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        settings: EmbeddingSettings,
    ) -> Tensor:
        count = len(features) if tiles is None else len(tiles)
        # No rows, of the type that autocast chooses.
        none = functional.linear(features[:0], weight, bias)
        embedded = none.new_empty(count + (0 if behind is None else len(behind)), len(weight))
        kept = none.new_empty(count, len(weight), dtype=torch.bool)
        if behind is not None:
            embedded[count:] = behind
        for part, inputs in _stretches(features, tiles):
            embedded[part], kept[part] = _activate(functional.linear(inputs, weight, bias), settings)
        ctx.save_for_backward(features, tiles, weight, bias, kept)
        ctx.settings = settings
        ctx.of_behind = None if behind is None else behind.dtype
        return embedded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        features, tiles, weight, bias, kept = ctx.saved_tensors
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        for part, stretch in _stretches(features, tiles):
            inputs = stretch.to(gradient.dtype)
            of_linear = gradient[part] * kept[part]
            if ctx.settings.activation == "gelu":
                linear = functional.linear(inputs, weight.to(inputs.dtype), bias.to(inputs.dtype))
                of_linear = torch.ops.aten.gelu_backward(of_linear, linear)
            of_weight += of_linear.T @ inputs
            of_bias += of_linear.sum(dim=0)
        of_behind = gradient[len(kept) :].to(ctx.of_behind) if ctx.of_behind else None
        scale = keep_scale(ctx.settings.dropout)
        return None, None, of_behind, of_weight.mul_(scale), of_bias.mul_(scale), None


def _stretches(features: Tensor, tiles: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    count = len(features) if tiles is None else len(tiles)
    for first in range(0, count, _STRETCH):
        part = slice(first, min(first + _STRETCH, count))
        yield part, features[part] if tiles is None else features[tiles[part]]


def _activate(linear: Tensor, settings: EmbeddingSettings) -> tuple[Tensor, Tensor]:
    """Apply activation and dropout; returns the outputs and which numbers the gradient passes through."""
    if settings.activation == "relu":
        kept = linear > 0
        outputs = linear
    else:
        kept = torch.ones_like(linear, dtype=torch.bool)
        outputs = functional.gelu(linear)
    if settings.dropout:
        kept.logical_and_(keep_mask(linear.shape, settings.dropout, linear.device))
    return outputs.mul_(kept).mul_(keep_scale(settings.dropout)), kept
