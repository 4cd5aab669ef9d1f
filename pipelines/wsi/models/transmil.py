"""Transformer over the tiles of a bag, whose class token is classified."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.wsi.config import EmbeddingSettings, Scores, TransmilSettings
from pipelines.wsi.models.aggregation import Aggregated, Aggregator, class_confidence, initialise
from pipelines.wsi.models.embedding import Embedding
from pipelines.wsi.models.nystrom import Attended, NystromAttention
from pipelines.wsi.models.ppeg import Ppeg, fill_square

_STRETCH = 4096  # tiles whose class scores a CPU computes at a time


class TransMIL(Aggregator):
    """Transformer aggregator of multiple instance learning; the order of the tiles counts.

    Shao et al., "TransMIL: Transformer based Correlated Multiple Instance Learning for Whole Slide Image
    Classification", NeurIPS 2021, in the form that MHIM-MIL (ICCV 2023) uses::

        H_0 = [c; h_1, ..., h_N]
        H_1 = H_0 + A(LN(H_0))
        H_2 = [H_1 of c; PPEG(H_1 of the tiles)]
        H_3 = H_2 + A(LN(H_2))
        Y   = W LN(H_3 of c)
        A(X) = softmax(q k~^T) softmax(q~ k~^T)^+ softmax(q~ k^T) v,   q scaled by 1/sqrt(head width)

    ``h_i`` ``embedding`` of tile i, ``c`` ``class_token``, ``A`` the Nystroem attention of ``first`` and ``second``
    with landmarks ``q~``, ``k~`` and a convolution along the tokens, ``PPEG`` ``positions``, ``LN`` before ``W``
    ``norm``, ``W`` ``classifier``. The attention to the tiles is the class token's in ``first``; as an approximation
    it need not sum to one and can be negative. ``forward`` documents the shapes::

        model = TransMIL(in_dim=1024, num_classes=2)
        logits = model(torch.rand(500, 1024))  # a bag: (2,)
        loss = functional.cross_entropy(logits, torch.tensor(1))
        loss.backward()
        logits, attention = model.eval()(torch.rand(500, 1024), return_attention=True)  # (2,), (500,)

    Args:
        in_dim: Width of a tile's features.
        num_classes: Classes.
        embed_dim: Width ``D`` of an embedded tile; a head is ``D / 8`` wide and there are ``D / 2`` landmarks.
        activation: ``relu`` or ``gelu``, after the embedding layer.
        dropout: After that activation.
        heads: Heads of an attention layer.
        attention_dropout: On the output of an attention layer.
        square_first: Fill the square before the first layer, as TransMIL on its own does, so that the copies attend.

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
        heads: int = 8,
        attention_dropout: float = 0.1,
        square_first: bool = False,
    ) -> None:
        super().__init__()
        dim = embed_dim
        settings = TransmilSettings(heads=heads, dropout=attention_dropout, square_first=square_first)
        self.square_first = square_first
        self.embedding = Embedding(EmbeddingSettings(dim=dim, activation=activation, dropout=dropout), in_dim)
        self.class_token = nn.Parameter(torch.randn(1, dim) * (1e-6 if square_first else 1))
        self.first = _Layer(settings, dim)
        self.positions = Ppeg(dim, least_side=1) if square_first else Ppeg(dim)
        self.second = _Layer(settings, dim)
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)
        self.apply(initialise)
        if square_first:
            self.apply(_initialise_convolution)

    def aggregate(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """Apply both layers; scores are the class token's attention in the first, or class confidences."""
        count = len(embedded)
        tiles = fill_square(embedded) if self.square_first else embedded
        del embedded
        token, tiles, ranked = self._first_layer(tiles, scores)
        tiles = self.positions(tiles)
        # Of the second layer, the class token alone is used.
        feature = self.norm(token + self.second.attend_first(token, tiles))  # (1, D)
        return Aggregated(
            logits=self.classifier(feature)[0],
            feature=feature,
            scores=None if ranked is None else ranked[:, :count],
        )

    def _first_layer(self, tiles: Tensor, scores: Scores | None) -> tuple[Tensor, Tensor, Tensor | None]:
        attended = self.first.attend(self.class_token, tiles)
        ranked = self._scores(attended, scores) if scores else None
        first, others = attended.first, attended.others
        del attended
        return self.class_token + first, tiles + others, ranked

    def _scores(self, attended: Attended, scores: Scores) -> Tensor:
        attention = attended.first_row()  # (heads, N)
        if scores.kind == "attention":
            return attention
        weight = self.classifier.weight.double()
        bias = self.classifier.bias.double() if scores.bias else None
        values = attended.other_values()
        size = _STRETCH if values.device.type == "cpu" else values.shape[1]
        pieces = zip(attention.split(size, dim=1), values.split(size, dim=1), strict=True)
        shares = (self.first.attention.project(weights[..., None] * values) for weights, values in pieces)  # (n, D)
        # Tiles differ by small shares of the attention: in single precision many confidences would be equal.
        return class_confidence(torch.cat([functional.linear(each.double(), weight, bias) for each in shares]))


class _Layer(nn.Module):
    """Attention after a layer norm; the caller adds the input."""

    def __init__(self, settings: TransmilSettings, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = NystromAttention(
            dim,
            heads=settings.heads,
            head_dim=max(dim // 8, 1),
            landmarks=max(dim // 2, 1),
            dropout=settings.dropout,
        )

    def attend(self, token: Tensor, tiles: Tensor) -> Attended:
        return self.attention.attend(token, tiles, self.norm)

    def attend_first(self, token: Tensor, tiles: Tensor) -> Tensor:
        return self.attention.attend_first(token, tiles, self.norm)


def _initialise_convolution(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
