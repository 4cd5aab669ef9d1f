"""Dual-stream multiple instance learning: tiles are compared with the highest-scoring tile of each class."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pipelines.wsi.config import DsmilSettings, EmbeddingSettings, Scores
from pipelines.wsi.models.aggregation import Aggregated, Aggregator, cross_entropy, initialise
from pipelines.wsi.models.embedding import Embedding
from pipelines.wsi.models.layers import full_precision, precise_linear


class DSMIL(Aggregator):
    """Dual-stream aggregator of multiple instance learning.

    Li et al., "Dual-stream Multiple Instance Learning Network for Whole Slide Image Classification with
    Self-supervised Contrastive Learning", CVPR 2021, for each class::

        c_m(B)     = max_i W_0 h_i;   h_m the tile of the maximum
        q_i, v_i   = W_q h_i, W_v h_i
        U(h_i,h_m) = softmax_i( <q_i, q_m> / sqrt(Q) )
        c_b(B)     = W_b b,   b = sum_i U(h_i, h_m) v_i
        c(B)       = 1/2 (c_m(B) + c_b(B))

    ``h_i`` ``embedding`` of tile i, ``W_0`` ``instance_classifier``, ``W_q`` ``query`` (two layers, ``Q`` wide),
    ``W_v`` ``value``, ``W_b`` ``bag_classifier``, ``b`` a row of ``Aggregated.feature`` ``(C, D)``, ``c_m``
    ``Aggregated.instance_logits``, ``c_b`` ``Aggregated.logits``. ``combine`` says where the two streams are averaged.
    The attention of a tile is its highest ``U`` of any class. ``forward`` documents the shapes::

        model = DSMIL(in_dim=1024, num_classes=2)
        logits = model(torch.rand(500, 1024))  # a bag: (2,)
        aggregated = model.aggregate(model.embedding(torch.rand(500, 1024)))
        model.loss(aggregated, torch.tensor(1)).backward()  # of both streams
        logits, attention = model.eval()(torch.rand(500, 1024), return_attention=True)  # (2,), (500,)

    Args:
        in_dim: Width of a tile's features.
        num_classes: Classes.
        embed_dim: Width ``D`` of an embedded tile.
        activation: ``relu`` or ``gelu``, after the embedding layer.
        dropout: After that activation.
        query_dim: Width ``Q`` of a query.
        combine: ``probabilities`` averages the streams after the softmax (MHIM v1), ``logits`` before it (``c(B)``,
            MHIM v2), ``bag`` predicts by ``c_b(B)`` alone.
        instance_weight: Share of ``c_m(B)`` in the average and in the loss.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(  # noqa: PLR0913 (the keywords of the paper)
        self,
        in_dim: int = 1024,
        num_classes: int = 2,
        *,
        embed_dim: int = 512,
        activation: Literal["relu", "gelu"] = "relu",
        dropout: float = 0.25,
        query_dim: int = 128,
        combine: Literal["probabilities", "logits", "bag"] = "probabilities",
        instance_weight: float = 0.5,
    ) -> None:
        super().__init__()
        dim, query = embed_dim, query_dim
        self.settings = DsmilSettings(query=query, combine=combine, instance_weight=instance_weight)
        self.embedding = Embedding(EmbeddingSettings(dim=dim, activation=activation, dropout=dropout), in_dim)
        self.instance_classifier = nn.Linear(dim, num_classes)
        self.query = nn.Sequential(nn.Linear(dim, query), nn.ReLU(inplace=True), nn.Linear(query, query), nn.Tanh())
        self.value = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True))
        self.bag_classifier = nn.Conv1d(num_classes, num_classes, kernel_size=dim)
        self.apply(initialise)

    def aggregate(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """Compute both streams; scores are the highest instance logit or the highest attention of any class."""
        instances = precise_linear(embedded, self.instance_classifier.weight, self.instance_classifier.bias)  # (N, C)
        attention = self._attention(embedded, instances.argmax(dim=0))  # (N, C)
        feature = attention.T.to(embedded.dtype) @ self.value(embedded)  # (C, D)
        ranked = attention if scores and scores.kind == "attention" else instances
        return Aggregated(
            logits=self.bag_classifier(feature[None])[0, :, 0],
            feature=feature,
            instance_logits=instances.amax(dim=0),
            scores=ranked.amax(dim=1)[None] if scores else None,
        )

    def tile_logits(self, embedded: Tensor) -> Tensor:
        """Return each tile's part of the bag's logits and, of the tile of a maximum, that of the instance's.

        Both streams are averaged as logits, which is what ``combine="logits"`` does and near what ``probabilities``
        does.
        """
        share = 0.0 if self.settings.combine == "bag" else self.settings.instance_weight
        instances = precise_linear(embedded, self.instance_classifier.weight)  # (N, C)
        critical = (instances + self.instance_classifier.bias).argmax(dim=0)
        attention = self._attention(embedded, critical).double()  # (N, C)
        weight = self.bag_classifier.weight  # (C, C of the streams, D)
        spoken = precise_linear(self.value(embedded), weight.flatten(0, 1)).unflatten(1, weight.shape[:2])  # (N, C, C)
        bag = (spoken * attention[:, None]).sum(dim=2)
        highest = torch.zeros_like(bag).scatter(0, critical[None], instances.double().gather(0, critical[None]))
        return torch.lerp(bag, highest, share)

    def loss(self, aggregated: Aggregated, label: Tensor) -> Tensor:
        """Compute the weighted cross-entropies of both streams, or that of their combined logits."""
        share = self.settings.instance_weight
        if self.settings.combine == "logits":
            return cross_entropy(self._mixed_logits(aggregated), label)
        bag = cross_entropy(aggregated.logits, label)
        return torch.lerp(bag, cross_entropy(_instances(aggregated), label), share)

    def logits(self, aggregated: Aggregated) -> Tensor:
        """Return the logits ``(C,)`` whose softmax is the prediction of the combined streams."""
        match self.settings.combine:
            case "bag":
                return aggregated.logits
            case "logits":
                return self._mixed_logits(aggregated)
            case "probabilities":
                return self.log_probabilities(aggregated)

    def log_probabilities(self, aggregated: Aggregated) -> Tensor:
        """Compute log-probabilities ``(C,)`` of the streams as ``combine`` says."""
        bag = full_precision(aggregated.logits)
        match self.settings.combine:
            case "bag":
                return bag.log_softmax(dim=0)
            case "logits":
                return self._mixed_logits(aggregated).log_softmax(dim=0)
            case "probabilities":
                share = self.settings.instance_weight
                streams = ((1 - share, bag), (share, _instances(aggregated)))
                parts = [math.log(weight) + logits.log_softmax(dim=0) for weight, logits in streams if weight]
                return torch.stack(parts).logsumexp(dim=0)

    def _attention(self, embedded: Tensor, critical: Tensor) -> Tensor:
        queries: Tensor = self.query(embedded)  # (N, Q)
        likeness = precise_linear(queries, queries[critical]) / math.sqrt(queries.shape[1])
        return likeness.softmax(dim=0)

    def _mixed_logits(self, aggregated: Aggregated) -> Tensor:
        bag = full_precision(aggregated.logits)
        return torch.lerp(bag, _instances(aggregated), self.settings.instance_weight)


def _instances(aggregated: Aggregated) -> Tensor:
    if aggregated.instance_logits is None:
        raise ValueError("instance_logits: expected (C,), found None")
    return aggregated.instance_logits
