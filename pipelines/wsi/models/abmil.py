"""Attention pooling: the feature of a bag is the mean of its tiles, weighted by a small network.

Source: Ilse et al., "Attention-based Deep Multiple Instance Learning", ICML 2018. Symbols: ``z_i`` embedded tile,
``e_i`` raw attention, ``a_i`` attention.
"""

from torch import Tensor, nn

from pipelines.wsi.config import AbmilSettings, ModelSettings, Scores
from pipelines.wsi.models.aggregation import Aggregated, Aggregator, class_confidence, initialise
from pipelines.wsi.models.embedding import Embedding
from pipelines.wsi.models.layers import Dropout, activation, precise_linear


class Abmil(Aggregator):
    """ABMIL, plain or gated."""

    def __init__(self, settings: ModelSettings, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = Embedding(settings.embedding, feature_dim)
        self.attention = Attention(settings.abmil, settings.embedding.dim)
        self.classifier = nn.Linear(settings.embedding.dim, num_classes)
        self.apply(initialise)

    def aggregate(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """Weighted mean, then a linear classifier. Scores: attention, or the class confidence of ``a_i z_i``."""
        attention = self.attention(embedded).softmax(dim=0)  # (N,)
        feature = attention.to(embedded.dtype)[None] @ embedded  # (1, D)
        return Aggregated(
            logits=self.classifier(feature)[0],
            feature=feature,
            scores=self._scores(embedded, attention, scores) if scores else None,
        )

    def _scores(self, embedded: Tensor, attention: Tensor, scores: Scores) -> Tensor:
        if scores.kind == "attention":
            return attention[None]
        # The classifier is linear: a_i may wait until its output, which is C wide instead of D.
        logits = attention.double()[:, None] * precise_linear(embedded, self.classifier.weight)  # (N, C)
        return class_confidence(logits + self.classifier.bias if scores.bias else logits)


class Attention(nn.Module):
    """Raw attention ``e`` ``(N,)`` of embedded tiles ``(N, D)``; its softmax over the tiles weights them."""

    def __init__(self, settings: AbmilSettings, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, settings.hidden, bias=settings.bias)
        self.gate = nn.Linear(dim, settings.hidden, bias=settings.bias) if settings.gated else None
        self.score = nn.Linear(settings.hidden, 1, bias=settings.bias)
        self.activation = activation(settings.activation)
        self.dropout = Dropout(settings.dropout)

    def forward(self, embedded: Tensor) -> Tensor:
        """One hidden layer, times the gate if there is one, then one unit."""
        hidden = self.dropout(self.activation(self.hidden(embedded)))  # (N, hidden)
        if self.gate is not None:
            hidden = hidden * self.dropout(self.gate(embedded).sigmoid())
        return precise_linear(hidden, self.score.weight, self.score.bias)[:, 0]
