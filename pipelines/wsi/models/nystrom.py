"""Nyström attention: every token attends to all others through a few averaged landmarks.

Source: Xiong et al., "Nyströmformer", AAAI 2021, as TransMIL uses it. Symbols: ``q``, ``k``, ``v`` queries, keys,
values; ``q~``, ``k~`` their landmarks; ``A1 = softmax(q k~)``, ``A2 = softmax(q~ k~)``, ``A3 = softmax(q~ k)``,
``P`` the pseudo-inverse of ``A2``. The output is ``A1 P A3 v``, multiplied from the right, so that no matrix of
tokens by landmarks is kept.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pipelines.wsi.models.layers import Dropout, full_precision, is_sparing
from pipelines.wsi.models.pseudo_inverse import PseudoInverse, pseudo_inverse
from vision_core.training.runtime import full_float32

_CONVOLUTION_WIDTH = 33
_STRETCH = 4096  # tokens at a time, where no gradient needs all of them at once
_LANDMARKS = 64  # at a time, likewise

Norm = Callable[[Tensor], Tensor]


def _as_they_are(tokens: Tensor) -> Tensor:
    return tokens


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """Landmarks through which the tokens of a bag attend to each other, in full precision.

    Attributes:
        queries: ``(heads, m, head_dim)``.
        keys: ``(heads, m, head_dim)``.
        inverse: Pseudo-inverse of the attention of the queries to the keys.
    """

    queries: Tensor
    keys: Tensor
    inverse: PseudoInverse

    def gather(self, keys: Tensor, values: Tensor) -> Tensor:
        """Compute ``P A3 v`` ``(heads, m, head_dim)`` of all tokens' keys and values ``(heads, n, head_dim)``."""
        seen = _attend(self.queries, keys, values)
        with full_float32(keys.device):
            return self.inverse.times(full_precision(seen))

    def row(self, query: Tensor, keys: Tensor, *, sparing: bool = False) -> Tensor:
        """Compute the attention ``(heads, n)`` of one token, which can be negative and need not sum to one.

        Args:
            query: ``(heads, 1, head_dim)``.
            keys: ``(heads, n, head_dim)``.
            sparing: Recompute the attention of the landmarks for the gradient instead of keeping it.
        """
        with full_float32(keys.device):
            weights = self.inverse.after(_attention(full_precision(query), self.keys))  # (heads, 1, m)
            # On a CPU head by head, so that only one matrix of landmarks by tokens exists at a time.
            size = 1 if keys.device.type == "cpu" else len(keys)
            tensors = (weights, self.queries, full_precision(keys))
            heads = zip(*(each.split(size) for each in tensors), strict=True)
            if sparing:
                rows = [checkpoint(_through, *head, use_reentrant=False, preserve_rng_state=False) for head in heads]
            else:
                rows = [_through(*head) for head in heads]
        return torch.cat(rows).squeeze(1)


@dataclass(frozen=True, kw_only=True)
class Attended:
    """Outputs of an attention layer, and the parts of the first token's attention to the others.

    Attributes:
        first: Output of the first token, ``(1, D)``.
        others: Outputs of the others, ``(n - 1, D)``.
        query: ``(heads, 1, head_dim)`` of the first token.
        keys: ``(heads, padding + n, head_dim)``.
        values: As ``keys``.
        landmarks: Between the tokens.
    """

    first: Tensor
    others: Tensor
    query: Tensor
    keys: Tensor
    values: Tensor
    landmarks: Landmarks

    def other_values(self) -> Tensor:
        """Return the values without the first token's: ``(heads, n - 1, head_dim)``."""
        return self.values[:, self.values.shape[1] - len(self.others) :]

    def first_row(self) -> Tensor:
        """Compute the first token's attention to the others: ``(heads, n - 1)``."""
        row = self.landmarks.row(self.query, self.keys)
        return row[:, row.shape[1] - len(self.others) :]


class NystromAttention(nn.Module):
    """Self-attention of tokens ``(n, D)``, linear in ``n`` in time and memory."""

    def __init__(self, dim: int, heads: int, head_dim: int, landmarks: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_dim, self.landmarks = heads, head_dim, landmarks
        inner = heads * head_dim
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.convolution = nn.Conv2d(heads, heads, (_CONVOLUTION_WIDTH, 1), groups=heads, bias=False)
        self.output = nn.Linear(inner, dim)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend from all tokens ``(n, D)`` to all."""
        attended = self.attend(tokens[:1], tokens[1:])
        return torch.cat([attended.first, attended.others])

    def attend(self, first: Tensor, others: Tensor, norm: Norm = _as_they_are) -> Attended:
        """Attend from all tokens to all, and keep the parts of the attention.

        Args:
            first: The first token, ``(1, D)``.
            others: The others, ``(n - 1, D)``; separate, since padding concatenates them in any case.
            norm: Normalisation of the tokens; applied here, since a tensor of the caller would live until the end.
        """
        tokens, padding = self._pad(first, others, norm)
        parts = [padding, 1, len(others)]
        landmarks = self._landmarks(tokens)
        query_weight, key_weight, value_weight = self._weights()
        keys, values = (self._heads(tokens, weight) for weight in (key_weight, value_weight))
        query = self._heads(tokens[padding : padding + 1], query_weight)
        gathered = landmarks.gather(keys, values)
        if is_sparing(tokens):
            attended = self._in_stretches(tokens, landmarks.keys, gathered, values)
        else:
            near = _convolve(values, self.convolution.weight)
            attended = self._attended(tokens, landmarks.keys, gathered, near)
        _, first, others = attended.split(parts)
        return Attended(first=first, others=others, query=query, keys=keys, values=values, landmarks=landmarks)

    def attend_first(self, first: Tensor, others: Tensor, norm: Norm = _as_they_are) -> Tensor:
        """Attend from the first token alone: ``(1, D)``.

        Values are linear in the tokens: the weighted sum is taken of the tokens and projected once, without values.
        """
        tokens, padding = self._pad(first, others, norm)
        landmarks = self._landmarks(tokens)
        query_weight, key_weight, value_weight = self._weights()
        keys, query = self._heads(tokens, key_weight), self._heads(tokens[padding : padding + 1], query_weight)
        row = landmarks.row(query, keys, sparing=self.training and torch.is_grad_enabled())  # (heads, padding + n)
        del keys
        reach = self.convolution.weight[:, 0, _CONVOLUTION_WIDTH // 2 :, 0][:, : len(tokens) - padding]
        row = row + functional.pad(reach, (padding, len(tokens) - padding - reach.shape[1]))
        summed = row.to(tokens.dtype) @ tokens  # (heads, D)
        values = summed[:, None] @ value_weight.unflatten(0, (self.heads, -1)).mT  # (heads, 1, head_dim)
        return self.project(values)

    def _attended(self, tokens: Tensor, landmarks: Tensor, gathered: Tensor, near: Tensor) -> Tensor:
        """Attend from tokens ``(n, D)`` and add ``near`` ``(heads, n, head_dim)``, which is overwritten: ``(n, D)``."""
        queries = self._heads(tokens, self._weights()[0])
        return self.project(near.add_(_attend(queries, landmarks, gathered)))

    def _in_stretches(self, tokens: Tensor, landmarks: Tensor, gathered: Tensor, values: Tensor) -> Tensor:
        """Attend in place, in stretches, so that no intermediate result is as large as the tokens."""
        count, reach = len(tokens), _CONVOLUTION_WIDTH // 2
        for first in range(0, count, _STRETCH):
            some, start = slice(first, first + _STRETCH), max(first - reach, 0)
            seen = _convolve(values[:, start : first + _STRETCH + reach], self.convolution.weight)
            near = seen[:, first - start :][:, : len(tokens[some])]
            tokens[some] = self._attended(tokens[some], landmarks, gathered, near)
        return tokens

    def project(self, heads: Tensor) -> Tensor:
        """Apply the output layer from ``(heads, n, head_dim)`` to ``(n, D)``."""
        projected: Tensor = self.dropout(self.output(_join(heads)))
        return projected

    def _pad(self, first: Tensor, others: Tensor, norm: Norm) -> tuple[Tensor, int]:
        """Prepend rows of zeros up to a multiple of the landmarks; returns the tokens and the number of rows."""
        padding = -(1 + len(others)) % self.landmarks
        first = norm(first)
        return torch.cat([first.new_zeros(padding, first.shape[1]), first, norm(others)]), padding

    def _landmarks(self, tokens: Tensor) -> Landmarks:
        # The projection has no bias: the mean of the queries is the query of the mean.
        means = tokens.unflatten(0, (self.landmarks, -1)).mean(dim=1)  # (m, D)
        query_weight, key_weight, _ = self._weights()
        queries, keys = (full_precision(self._heads(means, weight)) for weight in (query_weight, key_weight))
        with full_float32(means.device):
            inverse = pseudo_inverse(_attention(queries, keys))
        return Landmarks(queries=queries, keys=keys, inverse=inverse)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.to_qkv.weight.chunk(3)
        return query, key, value

    def _heads(self, inputs: Tensor, weight: Tensor) -> Tensor:
        return self._divide(functional.linear(inputs, weight))

    def _divide(self, joined: Tensor) -> Tensor:
        return joined.reshape(-1, self.heads, self.head_dim).transpose(0, 1)


def _convolve(values: Tensor, weight: Tensor) -> Tensor:
    """Convolve each head of ``(heads, n, head_dim)`` along its tokens, by weights ``(heads, 1, width, 1)``."""
    # As one image, a pixel wide, channels last: several times faster than an image per head.
    image = _join(values).T[None, :, :, None].contiguous(memory_format=torch.channels_last)
    kernels = weight.repeat_interleave(values.shape[2], dim=0)
    convolved = functional.conv2d(image, kernels, padding=(_CONVOLUTION_WIDTH // 2, 0), groups=len(kernels))
    heads: Tensor = convolved.squeeze(3).squeeze(0).T.unflatten(1, (len(values), -1)).transpose(0, 1)
    return heads


def _join(heads: Tensor) -> Tensor:
    return heads.transpose(0, 1).flatten(1)  # (n, heads * head_dim)


def _through(weights: Tensor, landmarks: Tensor, keys: Tensor) -> Tensor:
    """Attend from one token ``(heads, 1, m)`` through the landmarks: ``(heads, 1, n)``."""
    if not is_sparing(keys):
        return weights @ _attention(landmarks, keys)
    row = keys.new_zeros(len(weights), 1, keys.shape[1])
    for some, theirs in zip(landmarks.split(_LANDMARKS, dim=1), weights.split(_LANDMARKS, dim=2), strict=True):
        row += theirs @ _attention(some, keys)
    return row


def _attention(queries: Tensor, keys: Tensor) -> Tensor:
    return (queries / math.sqrt(keys.shape[-1]) @ keys.mT).softmax(dim=-1)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(queries[None], keys[None], values[None]).squeeze(0)
