"""Attention through landmarks: every token attends to all others by way of a few averaged ones.

Source: Xiong et al., "Nyströmformer", AAAI 2021, as TransMIL uses it. Symbols: ``q``, ``k``, ``v`` queries, keys,
values; ``q~``, ``k~`` their landmarks; ``A1 = softmax(q k~)``, ``A2 = softmax(q~ k~)``, ``A3 = softmax(q~ k)``,
``P`` the pseudo-inverse of ``A2``. The output is ``A1 P A3 v``, multiplied from the right, so that no matrix of
tokens by landmarks is kept.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.wsi.precision import full_precision, outside_autocast

_CONVOLUTION_WIDTH = 33
_ITERATIONS = 6


@dataclass(frozen=True, kw_only=True)
class Attended:
    """The output of an attention layer, and what it takes to see how the first token attends to the others.

    Attributes:
        output: ``(rows, D)``.
        query: ``(heads, 1, head_dim)`` of the first token.
        keys: ``(heads, padding + n, head_dim)``.
        values: As ``keys``.
        landmarks: Of queries and of keys, each ``(heads, m, head_dim)``.
        inverse: ``(heads, m, m)``.
        padding: Rows of zeros in front.
    """

    output: Tensor
    query: Tensor
    keys: Tensor
    values: Tensor
    landmarks: tuple[Tensor, Tensor]
    inverse: Tensor
    padding: int

    def other_values(self) -> Tensor:
        """Values without the first token's: ``(heads, n - 1, head_dim)``."""
        return self.values[:, self.padding + 1 :]

    def first_row(self) -> Tensor:
        """How the first token attends to the others: ``(heads, n - 1)``.

        An approximation: the rows do not sum to one, and entries can be negative.
        """
        near, far = self.landmarks
        with outside_autocast(self.keys.device):
            weights = _attention(full_precision(self.query), far) @ self.inverse  # (heads, 1, m)
            # Head by head, so that only one matrix of landmarks by tokens exists at a time.
            rows = [
                weight @ _attention(landmarks, full_precision(keys))
                for weight, landmarks, keys in zip(weights, near, self.keys, strict=True)
            ]
        return torch.cat(rows)[:, self.padding + 1 :]


class NystromAttention(nn.Module):
    """Self-attention of ``(n, D)`` tokens, in time and memory linear in ``n``."""

    def __init__(self, dim: int, heads: int, head_dim: int, landmarks: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_dim, self.landmarks = heads, head_dim, landmarks
        inner = heads * head_dim
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.convolution = nn.Conv2d(heads, heads, (_CONVOLUTION_WIDTH, 1), groups=heads, bias=False)
        self.output = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attended tokens ``(n, D)``."""
        return self.attend(tokens, len(tokens)).output

    def attend(self, tokens: Tensor, rows: int) -> Attended:
        """The first ``rows`` of the attended tokens, and the parts of the attention.

        Rows of zeros fill up to a multiple of the landmarks and take part in it.
        """
        padding = -len(tokens) % self.landmarks
        padded = functional.pad(tokens, (0, 0, padding, 0))
        del tokens  # as large as the bag, like most of what follows
        query_weight, key_weight, value_weight = self.to_qkv.weight.chunk(3)
        # The projection has no bias: the mean of the queries is the query of the mean.
        means = padded.unflatten(0, (self.landmarks, -1)).mean(dim=1)  # (m, D)
        near, far = (full_precision(self._heads(means, weight)) for weight in (query_weight, key_weight))
        values = self._heads(padded, value_weight)
        heads = self._convolve(values[:, padding:], rows)
        keys = self._heads(padded, key_weight)
        queries = self._heads(padded[padding:][:rows], query_weight)
        del padded
        seen = _attend(near, keys, values)  # (heads, m, head_dim)
        with outside_autocast(keys.device):
            inverse = pseudo_inverse(_attention(near, far))
            seen = inverse @ full_precision(seen)
        heads = heads.add_(_attend(queries, far, seen))
        return Attended(
            output=self.project(heads),
            query=queries[:, :1].clone(),
            keys=keys,
            values=values,
            landmarks=(near, far),
            inverse=inverse,
            padding=padding,
        )

    def project(self, heads: Tensor) -> Tensor:
        """The output layer, from ``(heads, n, head_dim)`` to ``(n, D)``."""
        projected: Tensor = self.dropout(self.output(_join(heads)))
        return projected

    def _heads(self, inputs: Tensor, weight: Tensor) -> Tensor:
        return self._divide(functional.linear(inputs, weight))

    def _divide(self, joined: Tensor) -> Tensor:
        return joined.reshape(-1, self.heads, self.head_dim).transpose(0, 1)

    def _convolve(self, values: Tensor, rows: int) -> Tensor:
        reach = _CONVOLUTION_WIDTH // 2
        joined = _join(values[:, : rows + reach])
        # As one image, a pixel wide, with its channels last: several times faster than an image per head.
        image = joined.T[None, :, :, None].contiguous(memory_format=torch.channels_last)
        weight = self.convolution.weight.repeat_interleave(self.head_dim, dim=0)
        convolved = functional.conv2d(image, weight, padding=(reach, 0), groups=len(weight))
        return self._divide(convolved[0, :, :rows, 0].T)


def pseudo_inverse(matrices: Tensor) -> Tensor:
    """Approximate inverses of ``(heads, m, m)`` row-stochastic matrices, by six iterations of third order.

    The start is scaled by maxima over all heads together, so that the result of a head depends on the others.
    """
    rows, columns = (matrices.abs().sum(dim=dim).amax() for dim in (-1, -2))
    inverse = matrices.mT / (rows * columns)
    for _ in range(_ITERATIONS):
        product = matrices @ inverse
        # P (13 I - X (15 I - X (7 I - X))) / 4 with X = A P, multiplied out so that no identity is made.
        inner = torch.baddbmm(product, product, product, beta=7, alpha=-1)
        inner = torch.baddbmm(product, product, inner, beta=15, alpha=-1)
        inverse = torch.baddbmm(inverse, inverse, inner, beta=13 / 4, alpha=-1 / 4)
    return inverse


def _join(heads: Tensor) -> Tensor:
    return heads.transpose(0, 1).flatten(1)  # (n, heads * head_dim)


def _attention(queries: Tensor, keys: Tensor) -> Tensor:
    return (queries @ keys.mT / math.sqrt(keys.shape[-1])).softmax(dim=-1)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(queries[None], keys[None], values[None])[0]
