"""Dual stream: the best tile of each class asks all others how alike they are.

Source: Li et al., "Dual-stream Multiple Instance Learning Network", CVPR 2021. Symbols: ``c`` instance logits,
``q`` query, ``v`` value, ``A`` attention, ``B`` bag feature.
"""

import math

import torch
from torch import Tensor, nn

from pipelines.wsi.config import ModelSettings, Scores
from pipelines.wsi.models.aggregation import Aggregated, Aggregator, cross_entropy, initialise
from pipelines.wsi.models.embedding import Embedding
from pipelines.wsi.models.layers import full_precision, precise_linear


class Dsmil(Aggregator):
    """DSMIL; the bag feature has a row per class."""

    def __init__(self, settings: ModelSettings, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.settings = settings.dsmil
        dim, query = settings.embedding.dim, settings.dsmil.query
        self.embedding = Embedding(settings.embedding, feature_dim)
        self.instance_classifier = nn.Linear(dim, num_classes)
        self.query = nn.Sequential(nn.Linear(dim, query), nn.ReLU(inplace=True), nn.Linear(query, query), nn.Tanh())
        self.value = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True))
        self.bag_classifier = nn.Conv1d(num_classes, num_classes, kernel_size=dim)
        self.apply(initialise)

    def aggregate(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """Both streams. Scores: the highest instance logit of any class, or its highest attention."""
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

    def loss(self, aggregated: Aggregated, label: Tensor) -> Tensor:
        """Cross-entropy of both streams; of their mean, where the logits are combined."""
        share = self.settings.instance_weight
        if self.settings.combine == "logits":
            return cross_entropy(self._mixed_logits(aggregated), label)
        bag = cross_entropy(aggregated.logits, label)
        return torch.lerp(bag, cross_entropy(_instances(aggregated), label), share)

    def log_probabilities(self, aggregated: Aggregated) -> Tensor:
        """Logarithms ``(C,)`` of the probabilities, combined as the settings say."""
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
