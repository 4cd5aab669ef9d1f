"""A transformer over the tiles of a bag, whose class token becomes the prediction.

Source: Shao et al., "TransMIL", NeurIPS 2021, in the form that MHIM-MIL (ICCV 2023) has inside.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.wsi.config import ModelSettings, Scores
from pipelines.wsi.models.aggregation import Aggregated, Aggregator, class_confidence, initialise
from pipelines.wsi.models.embedding import Embedding
from pipelines.wsi.models.nystrom import Attended, NystromAttention
from pipelines.wsi.models.ppeg import Ppeg, fill_square

_STRETCH = 4096  # tiles whose class scores are computed at a time


class Transmil(Aggregator):
    """TransMIL. The order of the tiles counts."""

    def __init__(self, settings: ModelSettings, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        dim, alone = settings.embedding.dim, settings.transmil.square_first
        self.square_first = alone
        self.embedding = Embedding(settings.embedding, feature_dim)
        self.class_token = nn.Parameter(torch.randn(1, dim) * (1e-6 if alone else 1))
        self.first = _Layer(settings)
        self.positions = Ppeg(dim, least_side=1) if alone else Ppeg(dim)
        self.second = _Layer(settings)
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)
        self.apply(initialise)
        if alone:
            self.apply(_initialise_convolution)

    def aggregate(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """Two layers with positions between them. Scores: the class token's attention in the first, or by class."""
        count = len(embedded)
        tiles = fill_square(embedded) if self.square_first else embedded
        del embedded
        token, tiles, ranked = self._first_layer(tiles, scores)
        tiles = self.positions(tiles)
        # Nobody reads the second layer but the class token.
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
        pieces = zip(attention.split(_STRETCH, dim=1), attended.other_values().split(_STRETCH, dim=1), strict=True)
        shares = (self.first.attention.project(weights[..., None] * values) for weights, values in pieces)  # (n, D)
        # A tile's share of the attention is small beside what all have in common: in single precision many are equal.
        return class_confidence(torch.cat([functional.linear(each.double(), weight, bias) for each in shares]))


class _Layer(nn.Module):
    """Attention after a normalisation; the caller adds the input."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        dim = settings.embedding.dim
        self.norm = nn.LayerNorm(dim)
        self.attention = NystromAttention(
            dim,
            heads=settings.transmil.heads,
            head_dim=max(dim // 8, 1),
            landmarks=max(dim // 2, 1),
            dropout=settings.transmil.dropout,
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
