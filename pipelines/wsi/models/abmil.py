"""Attention-based multiple instance learning, plain or gated."""

from typing import Literal

from torch import Tensor, nn

from pipelines.wsi.config import AbmilSettings, EmbeddingSettings, Scores
from pipelines.wsi.models.aggregation import Aggregated, Aggregator, class_confidence, initialise
from pipelines.wsi.models.embedding import Embedding
from pipelines.wsi.models.layers import Dropout, activation, precise_linear


class ABMIL(Aggregator):
    """Attention-based aggregator of multiple instance learning.

    Ilse et al., "Attention-based Deep Multiple Instance Learning", ICML 2018::

        z   = sum_k a_k h_k                                       (7)
        a_k = softmax_k( w^T tanh(V h_k) )                        (8)
        a_k = softmax_k( w^T (tanh(V h_k) * sigmoid(U h_k)) )     (9), gated

    ``h_k`` ``embedding`` of tile k, ``V`` ``attention.hidden``, ``U`` ``attention.gate``, ``w`` ``attention.score``,
    ``a_k`` the attention, ``z`` ``Aggregated.feature``; ``classifier`` is linear. The defaults are the plain variant
    inside MHIM-MIL (ICCV 2023): ReLU instead of tanh, no biases. ``forward`` documents the shapes::

        model = ABMIL(in_dim=1024, num_classes=2)
        logits = model(torch.rand(500, 1024))  # a bag: (2,)
        loss = functional.cross_entropy(logits, torch.tensor(1))
        loss.backward()
        logits, attention = model.eval()(torch.rand(500, 1024), return_attention=True)  # (2,), (500,)

    Args:
        in_dim: Width of a tile's features.
        num_classes: Classes.
        embed_dim: Width ``D`` of an embedded tile.
        activation: ``relu`` or ``gelu``, after the embedding layer.
        dropout: After that activation.
        attention_dim: Width of the attention network.
        gated: Use equation 9 instead of 8.
        attention_activation: ``relu``, ``gelu`` or ``tanh``.
        attention_bias: Biases in the attention network.
        attention_dropout: On the hidden units of attention and gate.

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
        attention_dim: int = 128,
        gated: bool = False,
        attention_activation: Literal["relu", "gelu", "tanh"] = "relu",
        attention_bias: bool = False,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        attention = AbmilSettings(
            hidden=attention_dim,
            activation=attention_activation,
            gated=gated,
            bias=attention_bias,
            dropout=attention_dropout,
        )
        self.embedding = Embedding(EmbeddingSettings(dim=embed_dim, activation=activation, dropout=dropout), in_dim)
        self.attention = Attention(attention, embed_dim)
        self.classifier = nn.Linear(embed_dim, num_classes)
        self.apply(initialise)

    def aggregate(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """Average tiles by attention and classify; scores are the attention, or the class confidence of ``a_k h_k``."""
        attention = self.attention(embedded).softmax(dim=0)  # (N,)
        feature = attention.to(embedded.dtype)[None] @ embedded  # (1, D)
        return Aggregated(
            logits=self.classifier(feature)[0],
            feature=feature,
            scores=self._scores(embedded, attention, scores) if scores else None,
        )

    def tile_logits(self, embedded: Tensor) -> Tensor:
        """Return ``a_k W h_k`` of each tile: the classifier is linear, and ``z`` a sum over tiles."""
        attention: Tensor = self.attention(embedded).softmax(dim=0).double()  # (N,)
        return attention[:, None] * precise_linear(embedded, self.classifier.weight)

    def _scores(self, embedded: Tensor, attention: Tensor, scores: Scores) -> Tensor:
        if scores.kind == "attention":
            return attention[None]
        # The classifier is linear: a_k may wait until its output, which is C wide instead of D.
        logits = attention.double()[:, None] * precise_linear(embedded, self.classifier.weight)  # (N, C)
        return class_confidence(logits + self.classifier.bias if scores.bias else logits)


class Attention(nn.Module):
    """Attention network from embedded tiles ``(N, D)`` to their attention before the softmax ``(N,)``."""

    def __init__(self, settings: AbmilSettings, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, settings.hidden, bias=settings.bias)
        self.gate = nn.Linear(dim, settings.hidden, bias=settings.bias) if settings.gated else None
        self.score = nn.Linear(settings.hidden, 1, bias=settings.bias)
        self.activation = activation(settings.activation)
        self.dropout = Dropout(settings.dropout)

    def forward(self, embedded: Tensor) -> Tensor:
        """Apply one hidden layer, the gate if there is one, and one output unit."""
        hidden = self.dropout(self.activation(self.hidden(embedded)))  # (N, hidden)
        if self.gate is not None:
            hidden = hidden * self.dropout(self.gate(embedded).sigmoid())
        return precise_linear(hidden, self.score.weight, self.score.bias)[:, 0]
