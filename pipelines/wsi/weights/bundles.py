"""Networks in and out of bundles, and what a loaded one says of a bag of tiles."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from pipelines.wsi.config import ModelSettings, Recycling, Scores
from pipelines.wsi.features.bags import Tiles, mean_tile, stretches
from pipelines.wsi.mhim.student_teacher import Mhim
from pipelines.wsi.models.aggregation import Aggregated, Aggregator
from pipelines.wsi.models.build import build_model
from vision_core.bundles import bundle
from vision_core.bundles.bundle import Bundle, Golden, Tensors
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError
from vision_core.evaluation.calibration import Calibration
from vision_core.evaluation.classification import call
from vision_core.evaluation.scope import Scope, outside
from vision_core.randomness import key

TASK = "wsi"
DECISION = "decision_threshold"
_GOLDEN_TILES = 7


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a model says of one bag.

    Attributes:
        probabilities: ``(C,)`` float64, calibrated where the bundle has a calibration.
        called: The class it is called.
        scores: ``(N,)`` float32, how much the model looked at each tile.
        possible: ``(C,)``, the classes in the conformal set; none without calibration.
        is_outside: Whether the bag is unlike those that the model was trained on; none where that is not known.
    """

    probabilities: NDArray[np.float64]
    called: int
    scores: NDArray[np.float32]
    possible: NDArray[np.bool_] | None = None
    is_outside: bool | None = None


class SlideModel:
    """A network from a bundle, in evaluation mode.

    Attributes:
        card: What the bundle says of itself.
        network: Takes bags of ``feature_dim``.
        feature_dim: Width of a tile's features.
        threshold: Of two classes, the calibrated probability of class 1 from which on a slide is called so. What is
            decided, is decided before calibration.
        temperature: Of the calibration; 1 without.
    """

    def __init__(self, network: Mhim, card: Card, device: torch.device) -> None:
        self.card = card
        self.network = network.to(device).eval().requires_grad_(False)
        self.feature_dim: int = network.aggregator.embedding.linear.in_features
        self.device = device
        known = card.calibration or {}
        self._calibration = Calibration.from_record(known) if "temperature" in known else None
        self._scope = Scope.from_record(card.scope) if card.scope else None
        self.temperature = self._calibration.temperature if self._calibration else 1.0
        self._decision = float(known.get(DECISION, 0.5))
        with np.errstate(divide="ignore"):
            self.threshold = float(self._calibrated(np.log([1 - self._decision, self._decision]))[1])

    @torch.inference_mode()
    def probabilities(self, features: Tiles) -> Tensor:
        """Calibrated probabilities ``(C,)`` of a bag ``(N, features)``."""
        return torch.from_numpy(self._calibrated(self._logarithms(self._aggregate(features))))

    @torch.inference_mode()
    def read(self, features: Tiles) -> Reading:
        """All that there is to say of a bag ``(N, features)``, which may lie on disk."""
        aggregated = self._aggregate(features, Scores())
        raw = self._logarithms(aggregated)
        assert aggregated.scores is not None
        scores = aggregated.scores[:, : len(features)].float().mean(dim=0)  # over heads; recycled tokens are no tiles
        return Reading(
            probabilities=self._calibrated(raw),
            called=int(call(np.exp(raw), self._decision)),
            scores=scores.cpu().numpy().astype(np.float32),
            possible=self._calibration.sets(raw) if self._calibration else None,
            is_outside=bool(outside(self._scope, mean_tile(features))) if self._scope else None,
        )

    def answer(self, inputs: Mapping[str, Tensor]) -> Tensors:
        """Raw outputs for the golden input."""
        return answer(self.network, {name: tensor.to(self.device) for name, tensor in inputs.items()})

    def _aggregate(self, features: Tiles, scores: Scores | None = None) -> Aggregated:
        embedding = self.network.aggregator.embedding
        embedded = torch.cat([embedding(part.to(self.device)) for part in stretches(features)])
        return self.network.read(embedded, scores)

    def _logarithms(self, aggregated: Aggregated) -> NDArray[np.float64]:
        found = self.network.aggregator.log_probabilities(aggregated)
        return np.asarray(found.double().cpu().numpy(), np.float64)

    def _calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of logarithms of uncalibrated ones."""
        return self._calibration.probabilities(raw) if self._calibration else np.exp(raw)


def save_network(folder: Path, network: Mhim, card: Card) -> Card:
    """Write a network as a bundle; architecture is filled in here, tiles and classes by the caller.

    What recycles tiles leaves with the network only where it is used at inference.

    Returns:
        The card as written.
    """
    used = network if network.recycles_at_test else Mhim(network.aggregator)
    dim = network.aggregator.embedding.linear.in_features

    def compute(tensors: Tensors, inputs: Tensors) -> Tensors:
        return answer(_network(card, dim, tensors), inputs)

    card = card.model_copy(update={"architecture": {**card.architecture, "feature_dim": dim}})
    return bundle.save(folder, used.state_dict(), card, Golden(inputs=_golden_inputs(dim), answer=compute))


def architecture(model: ModelSettings, recycling: Recycling | None = None) -> dict[str, Any]:
    """What a network is rebuilt from; ``recycling`` only where it is used at inference."""
    return {"model": model.model_dump(mode="json"), "recycling": recycling and recycling.model_dump(mode="json")}


def load_network(path: Path, device: torch.device) -> SlideModel:
    """Read a bundle of this task.

    Raises:
        CheckpointError: It is damaged, of another task, or does not say what it is made of.
    """
    content = bundle.load(path, TASK)
    return SlideModel(network_of(content, path), content.card, device)


def network_of(content: Bundle, path: Path) -> Mhim:
    """The network of a bundle in memory.

    Raises:
        CheckpointError: Card and weights do not fit each other.
    """
    dim = content.card.architecture.get("feature_dim")
    if not isinstance(dim, int) or dim < 1:
        raise CheckpointError(f"'{path}': card.json says no width of features ('{dim}'). Fetch the bundle again.")
    return _network(content.card, dim, content.tensors)


def settings_of(card: Card) -> ModelSettings:
    """The network's settings.

    Raises:
        CheckpointError: The card is of something else.
    """
    try:
        return ModelSettings.model_validate(card.architecture.get("model"))
    except ValidationError as error:
        told = error.errors()[0]["msg"]
        raise CheckpointError(f"card.json describes no network for slides: {told}. Fetch the bundle again.") from error


@torch.no_grad()
def answer(network: Mhim, inputs: Mapping[str, Tensor]) -> Tensors:
    """Raw outputs for the golden input: logits, bag feature, tile scores, probabilities."""
    network = network.eval()
    features = inputs["features"]
    aggregator: Aggregator = network.aggregator
    aggregated = aggregator.aggregate(aggregator.embedding(features), Scores())
    assert aggregated.scores is not None
    outputs = {"logits": aggregated.logits, "feature": aggregated.feature, "scores": aggregated.scores}
    outputs["probabilities"] = network(features)
    return {name: tensor.float().cpu() for name, tensor in outputs.items()}


def _network(card: Card, dim: int, tensors: Tensors) -> Mhim:
    settings = settings_of(card)
    recycling = card.architecture.get("recycling")
    network = Mhim(
        build_model(settings, dim, len(card.classes)), Recycling.model_validate(recycling) if recycling else None
    )
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        first = wrong[0]
        raise CheckpointError(
            f"card.json describes {settings.name} with {len(card.classes)} classes, which the weights do not fit: "
            f"'{first}' has the shape {found.get(first)}, expected {wanted.get(first)}. Fetch the bundle again."
        )
    network.load_state_dict(tensors)
    return network


def _golden_inputs(dim: int) -> Tensors:
    generator = torch.Generator().manual_seed(key("golden", TASK))
    return {"features": torch.rand(_GOLDEN_TILES, dim, generator=generator)}
