"""What the networks have in common: tiles are embedded one by one, then a bag of them becomes a prediction."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from pipelines.wsi.config import Scores
from pipelines.wsi.models.embedding import Embedding
from pipelines.wsi.models.layers import full_precision


@dataclass(frozen=True, kw_only=True)
class Aggregated:
    """What a network makes of a bag of ``N`` tiles.

    Attributes:
        logits: ``(C,)`` of the bag.
        feature: ``(rows, D)`` that the logits are computed from: one row, or one per class (DSMIL).
        instance_logits: ``(C,)`` of the best tile per class, where the network has them (DSMIL).
        scores: ``(rows, N)`` of the tiles, where they were asked for: one row, or one per head.
    """

    logits: Tensor
    feature: Tensor
    instance_logits: Tensor | None = None
    scores: Tensor | None = None


class Aggregator(nn.Module, ABC):
    """A network from a bag ``(N, features)`` to the probabilities of ``C`` classes."""

    embedding: Embedding

    @abstractmethod
    def aggregate(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """One bag of embedded tiles ``(N, D)``, with the scores of its tiles if they are asked for."""

    def loss(self, aggregated: Aggregated, label: Tensor) -> Tensor:
        """Cross-entropy with the bag's ``label``, an int64 scalar."""
        return cross_entropy(aggregated.logits, label)

    def log_probabilities(self, aggregated: Aggregated) -> Tensor:
        """Logarithms ``(C,)`` of the probabilities: they differ where probabilities of nearly one are all one."""
        return full_precision(aggregated.logits).log_softmax(dim=0)

    def probabilities(self, aggregated: Aggregated) -> Tensor:
        """``(C,)``, summing to one."""
        return self.log_probabilities(aggregated).exp()

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities ``(C,)`` of a whole bag ``(N, features)``."""
        return self.probabilities(self.aggregate(self.embedding(features)))


def initialise(module: nn.Module) -> None:
    """Xavier-normal weights and zero biases in a linear layer; for ``nn.Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Of one bag: ``logits`` ``(C,)``, ``label`` an int64 scalar."""
    return functional.cross_entropy(full_precision(logits), label)


def class_confidence(logits: Tensor) -> Tensor:
    """The highest class probability ``(1, N)`` of each tile from its logits ``(N, C)``.

    In float64: a tile has about an ``N``-th of the bag's logits, and in float32 the probabilities of a large bag
    would tie just above ``1 / C``.
    """
    return logits.double().softmax(dim=1).amax(dim=1)[None]
