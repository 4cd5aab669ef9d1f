"""A transformer over the tiles of a bag, whose class token becomes the prediction.

Source: Shao et al., "TransMIL", NeurIPS 2021, in the form that MHIM-MIL (ICCV 2023) has inside.
"""

import torch
from torch import Tensor, nn

from pipelines.wsi.aggregation import Aggregated, Aggregator, Embedding, class_confidence, initialise
from pipelines.wsi.config import ModelSettings, Scores
from pipelines.wsi.nystrom import Attended, NystromAttention
from pipelines.wsi.ppeg import Ppeg, fill_square
from pipelines.wsi.precision import precise_linear


class Transmil(Aggregator):
    """TransMIL. The order of the tiles counts."""

    def __init__(self, settings: ModelSettings, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        dim = settings.embedding.dim
        self.settings = settings.transmil
        self.embedding = Embedding(settings.embedding, feature_dim)
        self.class_token = nn.Parameter(torch.randn(1, dim))
        self.first = Layer(settings)
        self.positions = Ppeg(dim, least_side=1 if settings.transmil.square_first else 7)
        self.second = Layer(settings)
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)
        self.apply(initialise)
        if settings.transmil.square_first:
            self._initialise_alone()

    def aggregate(self, embedded: Tensor, scores: Scores | None = None) -> Aggregated:
        """Two layers with positions between them. Scores: the class token's attention in the first, or by class."""
        tiles = fill_square(embedded) if self.settings.square_first else embedded
        tokens, attended = self.first(torch.cat([self.class_token, tiles]))
        scored = self._scores(attended, scores)[:, : len(embedded)] if scores else None
        ...
