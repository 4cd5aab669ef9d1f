"""Recycling of the tiles that the student does not keep into a few tokens, by queries shared by all bags.

Source: Tang et al., "Multiple Instance Learning Framework with Masked Hard Instance Mining", IJCV 2025 (global recycle
network). Symbols: ``Q`` queries, ``k`` tokens, ``rho`` share of tiles kept. Unlike in the released code the queries
move after the backward pass, which needs their values of the forward pass.
"""

import math

import torch
from torch import Tensor, nn

from pipelines.wsi.config import Recycling
from pipelines.wsi.mhim.masking import permutation
from pipelines.wsi.models.aggregation import initialise
from pipelines.wsi.models.layers import Dropout, full_precision


def split(kept: Tensor, recycling: Recycling, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Divide the unmasked tiles into those that stay tiles and those to recycle.

    Args:
        kept: Ascending indices ``(n,)``.
        recycling: The share that stays, and whether in the order of the slide.
        generator: Of the draw; the global one when None.
    """
    num_tiles = math.floor(recycling.keep * len(kept))
    order = permutation(len(kept), kept.device, generator)
    stay, recycle = order[:num_tiles], order[num_tiles:]
    return kept[stay.sort().values if recycling.restore_order else stay], kept[recycle]


class Recycler(nn.Module):
    """Cross-attention from ``k`` shared queries to the recycled tiles.

    Args:
        dim: Width of a tile.
        tokens: ``k``.
        heads: Of the attention.
        head_dim: Width of a head.
        dropout: On the attention and on the tokens.
    """

    queries: Tensor

    def __init__(self, dim: int, tokens: int, heads: int = 8, head_dim: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.split = (heads, head_dim)
        inner = heads * head_dim
        self.norm = nn.LayerNorm(dim)
        self.to_query = nn.Linear(dim, inner, bias=False)
        self.to_key_value = nn.Linear(dim, 2 * inner, bias=False)
        self.output = nn.Linear(inner, dim)
        self.dropout = Dropout(dropout)
        self.apply(initialise)
        bound = math.sqrt(6 / (3 * 16 * 16 + dim))
        # A buffer: no gradient moves the queries, but checkpoints and the teacher's average carry them.
        self.register_buffer("queries", torch.empty(tokens, dim).uniform_(-bound, bound))

    def forward(self, tiles: Tensor) -> Tensor:
        """Recycle embedded tiles ``(n, D)`` into tokens ``(k, D)``."""
        inputs = self.norm(tiles)
        attention = self.dropout(self.attention(inputs)).to(inputs.dtype)  # (heads, k, n)
        seen = (attention.flatten(0, 1) @ inputs).unflatten(0, attention.shape[:2])  # (heads, k, D)
        _, to_value = self._key_value_weights()
        heads = torch.einsum("hkD,hdD->khd", seen, to_value).flatten(1)  # (k, heads * head_dim)
        tokens: Tensor = self.dropout(self.output(heads))
        return tokens

    def attention(self, inputs: Tensor) -> Tensor:
        """Compute the attention ``(heads, k, n)`` of the queries to normalised tiles ``(n, D)``.

        The projections of keys and values are applied to the few queries instead of the many tiles.
        """
        queries = self.to_query(self.norm(self.queries)).unflatten(1, self.split)  # (k, heads, head_dim)
        to_key, _ = self._key_value_weights()
        carried = torch.einsum("khd,hdD->hkD", queries, to_key) / math.sqrt(self.split[1])
        likeness = (carried.flatten(0, 1) @ inputs.T).unflatten(0, carried.shape[:2])
        return full_precision(likeness).softmax(dim=-1)

    @torch.no_grad()
    def follow(self, tokens: Tensor, keep_rate: float) -> None:
        """Move the queries towards the tokens ``(k, D)`` of a step; call it after the optimizer has moved."""
        self.queries.lerp_(tokens.to(self.queries.dtype), 1 - keep_rate)

    def _key_value_weights(self) -> tuple[Tensor, Tensor]:
        keys, values = self.to_key_value.weight.unflatten(0, (2, *self.split))  # each (heads, head_dim, D)
        return keys, values
