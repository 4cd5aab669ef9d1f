"""Base class of the aggregators: embed tiles one by one, then turn a bag of them into a prediction."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.wsi.config import Scores
from pipelines.wsi.models.embedding import Embedding
from pipelines.wsi.models.layers import full_precision


@dataclass(frozen=True, kw_only=True)
class Aggregated:
    """Outputs of a network for a bag of ``N`` tiles.

    Attributes:
        logits: ``(C,)`` of the bag.
        feature: ``(rows, D)`` that the logits are computed from: one row, or one per class (DSMIL).
        instance_logits: ``(C,)`` of the best tile per class, where the network computes them (DSMIL).
        scores: ``(rows, N)`` of the tiles, where requested: one row, or one per head.
    """

    logits: Tensor
    feature: Tensor
    instance_logits: Tensor | None = None
    scores: Tensor | None = None


Aggregate = Callable[[Tensor, Scores | None], Aggregated]


class Aggregator(nn.Module, ABC):
    """A network from a bag of tile features to the logits of ``C`` classes."""

    embedding: Embedding

    @abstractmethod
    def aggregate(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """Aggregate a bag of embedded tiles ``(N, D)``, with tile scores if requested."""

    def tile_logits(self, embedded: Tensor) -> Tensor | None:
        """Divide the logits of a bag ``(N, D)`` among its tiles.

        Returns:
            ``(N, C)`` float64, whose sum over the tiles is the logits without their biases; None where the logits are
            no sum over tiles.
        """
        return None

    def loss(self, aggregated: Aggregated, label: Tensor) -> Tensor:
        """Compute the cross-entropy with the bag's ``label``, an int64 scalar."""
        return cross_entropy(aggregated.logits, label)

    def logits(self, aggregated: Aggregated) -> Tensor:
        """Return the logits ``(C,)`` whose softmax is the predicted probabilities."""
        return aggregated.logits

    def log_probabilities(self, aggregated: Aggregated) -> Tensor:
        """Compute log-probabilities ``(C,)``, which differ where several probabilities round to one."""
        return full_precision(aggregated.logits).log_softmax(dim=0)

    def probabilities(self, aggregated: Aggregated) -> Tensor:
        """Compute class probabilities ``(C,)``."""
        return self.log_probabilities(aggregated).exp()

    def forward(
        self, features: Tensor, mask: Tensor | None = None, *, return_attention: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Classify a bag, or each bag of a padded batch.

        Args:
            features: Tile features ``(N, in_dim)`` of a bag, or ``(B, N, in_dim)`` of a batch.
            mask: ``(N,)`` or ``(B, N)`` bool, true where there is a tile; None: everywhere.
            return_attention: Return the attention to the tiles too.

        Returns:
            Logits ``(C,)`` or ``(B, C)``, whose softmax is the predicted probabilities; with ``return_attention`` a
            pair of them and the attention ``(N,)`` or ``(B, N)``, the mean over heads, 0 where the mask is false.

        Raises:
            ValueError: A shape or type is not as above, or a bag has no tile.
        """
        return self.classify_bags(self.aggregate, features, mask, return_attention=return_attention)

    def classify_bags(
        self, aggregate: Aggregate, features: Tensor, mask: Tensor | None, *, return_attention: bool
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Classify bags as ``forward`` does, by any function that aggregates embedded tiles.

        Bags of a batch run one after the other, without their padding: the result of a bag depends on no other.
        """
        _check_bags(features, mask, self.embedding.linear.in_features)
        scores = Scores() if return_attention else None
        if features.ndim == 2:
            logits, attention = self._classify(aggregate, features, mask, scores)
            return logits if attention is None else (logits, attention)
        masks = [None] * len(features) if mask is None else list(mask)
        classified = [self._classify(aggregate, *each, scores) for each in zip(features, masks, strict=True)]
        logits = torch.stack([each for each, _ in classified])
        attentions = [each for _, each in classified if each is not None]
        return (logits, torch.stack(attentions)) if attentions else logits

    def _classify(
        self, aggregate: Aggregate, features: Tensor, mask: Tensor | None, scores: Scores | None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits ``(C,)`` and attention ``(N,)`` of a bag ``(N, in_dim)``."""
        tiles = None if mask is None else mask.nonzero()[:, 0]
        embedded = self.embedding(features, tiles)
        aggregated = aggregate(embedded, scores)
        if aggregated.scores is None:
            return self.logits(aggregated), None
        attention = aggregated.scores[:, : len(embedded)].mean(dim=0)  # recycled tokens behind the tiles have none
        if tiles is not None:
            attention = attention.new_zeros(len(features)).index_put((tiles,), attention)
        return self.logits(aggregated), attention


def initialise(module: nn.Module) -> None:
    """Set Xavier-normal weights and zero biases in a linear layer; for ``nn.Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Compute the cross-entropy of one bag from ``logits`` ``(C,)`` and an int64 scalar."""
    return functional.cross_entropy(full_precision(logits), label)


def class_confidence(logits: Tensor) -> Tensor:
    """Compute the highest class probability ``(1, N)`` of each tile from its logits ``(N, C)``.

    In float64: a tile has about an ``N``-th of the bag's logits, and in float32 the probabilities of a large bag
    would tie just above ``1 / C``.
    """
    return logits.double().softmax(dim=1).amax(dim=1)[None]


def _check_bags(features: Tensor, mask: Tensor | None, in_dim: int) -> None:
    if features.ndim not in {2, 3} or features.shape[-1] != in_dim:
        raise ValueError(f"features: expected (N, {in_dim}) or (B, N, {in_dim}), found {tuple(features.shape)}")
    if 0 in features.shape[:-1]:
        raise ValueError(f"features: expected at least one tile, found the shape {tuple(features.shape)}")
    if mask is None:
        return
    if mask.dtype != torch.bool or mask.shape != features.shape[:-1]:
        expected = f"bool of the shape {tuple(features.shape[:-1])}"
        raise ValueError(f"mask: expected {expected}, found {mask.dtype} of the shape {tuple(mask.shape)}")
    if not bool(mask.any(dim=-1).all()):
        raise ValueError("mask: expected at least one tile in each bag, found a bag without any")
