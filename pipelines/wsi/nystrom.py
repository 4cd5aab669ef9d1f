"""Attention through landmarks: every token attends to all others by way of a few averaged ones.

Source: Xiong et al., "Nyströmformer", AAAI 2021, as TransMIL uses it. Symbols: ``q``, ``k``, ``v`` queries, keys,
values; ``q~``, ``k~`` their landmarks; ``A1 = softmax(q k~)``, ``A2 = softmax(q~ k~)``, ``A3 = softmax(q~ k)``,
``P`` the pseudo-inverse of ``A2``. The output is ``A1 P A3 v``, multiplied from the right, so that no matrix of
tokens by landmarks is kept.
"""

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
        output: ``(n, D)``.
        query: ``(heads, 1, head_dim)`` of the first token.
        keys: ``(heads, padded, head_dim)``, zero rows in front; ``values`` likewise.
        values: As ``keys``.
        landmarks: Of queries and of keys, each ``(heads, m, head_dim)``.
        inverse: ``(heads, m, m)``.
    """

    output: Tensor
    query: Tensor
    keys: Tensor
    values: Tensor
    landmarks: tuple[Tensor, Tensor]
    inverse: Tensor

    def other_values(self) -> Tensor:
        """Values without the first token's: ``(heads, n - 1, head_dim)``."""
        return self.values[:, self._padding + 1 :]

    def first_row(self) -> Tensor:
        """How the first token attends to the others: ``(heads, n - 1)``.

        An approximation: the rows do not sum to one, and entries can be negative.
        """
        queries, keys = self.landmarks
        with outside_autocast(self.keys.device):
            near = _attention(full_precision(self.query), keys) @ self.inverse  # (heads, 1, m)
            # Head by head, so that only one matrix of landmarks by tokens exists at a time.
            rows = [near[head] @ _attention(queries[head], full_precision(self.keys[head])) for head in range(len(near))]
        return torch.cat(rows)[:, self._padding + 1 :]

    @property
    def _padding(self) -> int:
        return self.keys.shape[1] - len(self.output)


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
        return self.attend(tokens).output

    def attend(self, tokens: Tensor) -> Attended:
        """Attended tokens with the parts of the attention. Rows of zeros fill up to a multiple of the landmarks."""
        count = len(tokens)
        padded = functional.pad(tokens, (0, 0, -count % self.landmarks, 0))
        queries, keys, values = self.to_qkv(padded).unflatten(1, (3, self.heads, self.head_dim)).permute(1, 2, 0, 3)
        near, far = (full_precision(each.unflatten(1, (self.landmarks, -1)).mean(dim=2)) for each in (queries, keys))
        seen = _attend(near, keys, values)  # (heads, m, head_dim)
        with outside_autocast(tokens.device):
            inverse = pseudo_inverse(_attention(near, far))
            seen = inverse @ full_precision(seen)
        own = queries[:, -count:]
        heads = _attend(own, far, seen).transpose(0, 1).flatten(1)  # (n, heads * head_dim)
        return Attended(
            output=self.project(heads + self._convolve(values[:, -count:])),
            query=own[:, :1],
            keys=keys,
            values=values,
            landmarks=(near, far),
            inverse=inverse,
        )

    def project(self, heads: Tensor) -> Tensor:
        """The output layer, from joined heads ``(n, heads * head_dim)`` to ``(n, D)``."""
        projected: Tensor = self.dropout(self.output(heads))
        return projected

    def _convolve(self, values: Tensor) -> Tensor:
        joined = values.transpose(0, 1).flatten(1)  # (n, heads * head_dim)
        # As one image, n high and one wide, with its channels last: several times faster than an image per head.
        image = joined.T[None, :, :, None].contiguous(memory_format=torch.channels_last)
        weight = self.convolution.weight.repeat_interleave(self.head_dim, dim=0)
        padding = (_CONVOLUTION_WIDTH // 2, 0)
        return functional.conv2d(image, weight, padding=padding, groups=len(weight))[0, :, :, 0].T


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


def _attention(queries: Tensor, keys: Tensor) -> Tensor:
    return (queries @ keys.mT * keys.shape[-1] ** -0.5).softmax(dim=-1)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(queries[None], keys[None], values[None])[0]
