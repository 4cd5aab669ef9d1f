"""What leaves for other programs: a bag of features to calibrated probabilities and to what was looked at."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.wsi.bundles import TASK, network_of
from pipelines.wsi.config import Scores
from pipelines.wsi.mhim import Mhim
from pipelines.wsi.transmil import Transmil
from vision_core import bundle
from vision_core.bundle import Card
from vision_core.calibration import Calibration
from vision_core.errors import UsageError
from vision_core.export import Exportable
from vision_core.randomness import key

_TILES = 1024  # that TransMIL is fixed at, unless another number is asked for
_EXAMPLE_TILES = 64
_LEAST = 1e-30


class ReadBag(nn.Module):
    """A network with the calibration of its bundle.

    Args:
        network: As ``network_of`` gives it.
        temperature: That the logarithms of its probabilities are divided by; 1 where there is no calibration.
    """

    def __init__(self, network: Mhim, temperature: float = 1.0) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities ``(C,)`` and scores ``(N,)`` of the tiles ``(N, features)``, a mean over heads."""
        aggregator, recycler = self.network.aggregator, self.network.recycler
        embedded = aggregator.embedding(features)
        if recycler is not None and self.network.recycles_at_test:
            embedded = torch.cat([embedded, recycler(embedded)])
        aggregated = aggregator.aggregate(embedded, Scores())
        assert aggregated.scores is not None
        scores = aggregated.scores[:, : features.shape[0]].float().mean(dim=0)  # len() would fix the number of tiles
        logarithms = aggregator.probabilities(aggregated).clamp(min=_LEAST).log()
        return (logarithms / self.temperature).softmax(dim=0), scores


def exportable(path: Path, size: int | None = None) -> Exportable:
    """The network of the bundle at ``path``; any number of tiles may vary, but TransMIL's is fixed at ``size``.

    Raises:
        CheckpointError: As for ``bundle.load`` and ``network_of``.
        UsageError: A size where none is to be fixed.
    """
    content = bundle.load(path, TASK)
    network, card = network_of(content, path).eval(), content.card
    is_fixed = isinstance(network.aggregator, Transmil)
    if size and not is_fixed:
        raise UsageError(f"--size '{size}': this network takes any number of tiles. Leave the option out.")
    count = (size or _TILES) if is_fixed else _EXAMPLE_TILES
    dim = network.aggregator.embedding.linear.in_features
    return Exportable(
        module=ReadBag(network, _temperature(card)),
        inputs={"features": torch.randn(count, dim, generator=torch.Generator().manual_seed(key("export", TASK)))},
        outputs=("probabilities", "scores"),
        dynamic={} if is_fixed else {"features": {0: "tiles"}},
        card=card,
        preprocessing=_described(card, count if is_fixed else None),
    )


def _temperature(card: Card) -> float:
    known = card.calibration or {}
    return Calibration.from_record(known).temperature if "temperature" in known else 1.0


def _described(card: Card, count: int | None) -> str:
    number = f"Exactly {count} tiles, whose order counts (--size N fixes another number)" if count else "Any tiles"
    return f"{number} of one slide, float32, as the card says: {json.dumps(card.preprocessing, sort_keys=True)}."
