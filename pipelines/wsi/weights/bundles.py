"""Networks of slides in bundles: saving, loading, and predictions on bags."""

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
from pipelines.wsi.features.bags import Tiles, mean_tile, tile_chunks
from pipelines.wsi.mhim.student_teacher import MHIM
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
class BagPrediction:
    """Prediction of a model on one bag.

    Attributes:
        probabilities: ``(C,)`` float64, calibrated where the bundle has a calibration.
        called: Predicted class at the model's threshold.
        scores: ``(N,)`` float32, attention score of each tile.
        possible: ``(C,)``, the classes in the conformal set; None without calibration.
        is_outside: Whether the bag lies outside the scope of the training slides; None without a scope.
        evidence: ``(N,)`` float32, how much each tile speaks for class ``evidence_for``; None where the network does
            not divide its logits among the tiles.
        evidence_for: Of two classes the second, whose threshold decides; of several the called one.
    """

    probabilities: NDArray[np.float64]
    called: int
    scores: NDArray[np.float32]
    possible: NDArray[np.bool_] | None = None
    is_outside: bool | None = None
    evidence: NDArray[np.float32] | None = None
    evidence_for: int = 1


class SlideModel:
    """Trained slide classifier from a bundle, in evaluation mode.

    Attributes:
        card: Card of the bundle.
        network: Network on bags ``(N, feature_dim)``.
        feature_dim: Width of a tile's features.
        threshold: Of two classes, the calibrated probability from which on class 1 is predicted. The decision itself
            is made on uncalibrated probabilities.
        temperature: Temperature of the calibration; 1 without.
    """

    def __init__(self, network: MHIM, card: Card, device: torch.device) -> None:
        self.card = card
        self.network = network.to(device).eval().requires_grad_(False)
        self.feature_dim: int = network.aggregator.embedding.linear.in_features
        self.device = device
        known = card.calibration or {}
        self._calibration = Calibration.from_record(known) if known else None
        self._scope = Scope.from_record(card.scope) if card.scope else None
        self.temperature = self._calibration.temperature if self._calibration else 1.0
        self._decision = _decision(known)
        with np.errstate(divide="ignore"):
            self.threshold = float(self._calibrated(np.log([1 - self._decision, self._decision]))[1])

    @torch.inference_mode()
    def probabilities(self, features: Tiles) -> Tensor:
        """Compute the calibrated probabilities ``(C,)`` of a bag ``(N, features)``."""
        return torch.from_numpy(self._calibrated(self._log_probabilities(self._aggregate(features))))

    @torch.inference_mode()
    def predict(self, features: Tiles) -> BagPrediction:
        """Predict class, tile scores and scope of a bag ``(N, features)``.

        The bag may be rows of an HDF5 file, which are read in chunks.
        """
        embedded = self._embed(features)
        aggregated = self.network.read(embedded, Scores())
        raw = self._log_probabilities(aggregated)
        assert aggregated.scores is not None
        scores = aggregated.scores[:, : len(features)].float().mean(dim=0)  # over heads; recycled tokens are no tiles
        called = int(call(np.exp(raw), self._decision))
        speaks_for = 1 if len(raw) == 2 else called
        return BagPrediction(
            probabilities=self._calibrated(raw),
            called=called,
            scores=scores.cpu().numpy().astype(np.float32),
            possible=self._calibration.sets(raw) if self._calibration else None,
            is_outside=bool(outside(self._scope, mean_tile(features))) if self._scope else None,
            evidence=self._evidence(embedded, speaks_for),
            evidence_for=speaks_for,
        )

    def answer(self, inputs: Mapping[str, Tensor]) -> Tensors:
        """Compute the raw outputs for the golden input."""
        return answer(self.network, {name: tensor.to(self.device) for name, tensor in inputs.items()})

    def _aggregate(self, features: Tiles) -> Aggregated:
        return self.network.read(self._embed(features))

    def _embed(self, features: Tiles) -> Tensor:
        embedding = self.network.aggregator.embedding
        return torch.cat([embedding(part.to(self.device)) for part in tile_chunks(features)])

    def _evidence(self, embedded: Tensor, label: int) -> NDArray[np.float32] | None:
        """Compute how much each tile speaks for a class ``(N,)``, against the strongest other one.

        A tile's part of the log-odds, times the number of tiles: its attention relative to uniform attention ``1 / N``
        times what its content says. Calibrated like the probabilities, it has the same unit on every slide.
        """
        parts = self.network.tile_logits(embedded)
        if parts is None:
            return None
        others = torch.cat([parts[:, :label], parts[:, label + 1 :]], dim=1).amax(dim=1)
        evidence = len(parts) / self.temperature * (parts[:, label] - others)
        return np.asarray(evidence.float().cpu().numpy(), np.float32)

    def _log_probabilities(self, aggregated: Aggregated) -> NDArray[np.float64]:
        found = self.network.aggregator.log_probabilities(aggregated)
        return np.asarray(found.double().cpu().numpy(), np.float64)

    def _calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrate log-probabilities; without calibration, take their exponential."""
        return self._calibration.probabilities(raw) if self._calibration else np.exp(raw)


def save_network(folder: Path, network: MHIM, card: Card) -> Card:
    """Write a network as a bundle; the caller's card lacks only ``feature_dim``.

    The recycler of tiles is saved only where it is used at inference.

    Returns:
        The card as written.
    """
    used = network if network.recycles_at_test else MHIM(network.aggregator)
    dim = network.aggregator.embedding.linear.in_features

    def compute(tensors: Tensors, inputs: Tensors) -> Tensors:
        return answer(_network(card, dim, tensors), inputs)

    card = card.model_copy(update={"architecture": {**card.architecture, "feature_dim": dim}})
    generator = torch.Generator().manual_seed(key("golden", TASK))
    inputs = {"features": torch.rand(_GOLDEN_TILES, dim, generator=generator)}
    return bundle.save(folder, used.state_dict(), card, Golden(inputs=inputs, answer=compute))


def architecture(model: ModelSettings, recycling: Recycling | None = None) -> dict[str, Any]:
    """Describe the architecture for the card; ``recycling`` only where used at inference."""
    return {"model": model.model_dump(mode="json"), "recycling": recycling and recycling.model_dump(mode="json")}


def load_network(path: Path, device: torch.device) -> SlideModel:
    """Load a slide classifier from a bundle.

    Raises:
        CheckpointError: The bundle is damaged, of another task, or lacks its architecture.
    """
    content = bundle.load(path, TASK)
    return SlideModel(build_network(content, path), content.card, device)


def build_network(content: Bundle, path: Path) -> MHIM:
    """Rebuild the network of a loaded bundle.

    Raises:
        CheckpointError: Card and weights do not fit each other.
    """
    dim = content.card.architecture.get("feature_dim")
    if not isinstance(dim, int) or dim < 1:
        raise CheckpointError(f"'{path}': card.json says no width of features ('{dim}'). Fetch the bundle again.")
    return _network(content.card, dim, content.tensors)


def _decision(calibration: Mapping[str, Any]) -> float:
    """Read the uncalibrated probability from which on class 1 is called.

    Raises:
        CheckpointError: The calibration holds something else in its place.
    """
    found = calibration.get(DECISION, 0.5)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
        raise CheckpointError(f"card.json, calibration: {DECISION} is '{found}', no share. Fetch the bundle again.")
    return float(found)


def model_settings(card: Card) -> ModelSettings:
    """Read the network's settings from a card.

    Raises:
        CheckpointError: The card describes no network for slides.
    """
    try:
        return ModelSettings.model_validate(card.architecture.get("model"))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise CheckpointError(
            f"card.json describes no network for slides: {reason}. Fetch the bundle again."
        ) from error


@torch.no_grad()
def answer(network: MHIM, inputs: Mapping[str, Tensor]) -> Tensors:
    """Compute raw outputs: logits, bag feature, tile scores, probabilities."""
    network = network.eval()
    features = inputs["features"]
    aggregator: Aggregator = network.aggregator
    aggregated = aggregator.aggregate(aggregator.embedding(features), Scores())
    assert aggregated.scores is not None
    outputs = {"logits": aggregated.logits, "feature": aggregated.feature, "scores": aggregated.scores}
    outputs["probabilities"] = network.probabilities(features)
    return {name: tensor.float().cpu() for name, tensor in outputs.items()}


def _network(card: Card, dim: int, tensors: Tensors) -> MHIM:
    settings = model_settings(card)
    recycling = card.architecture.get("recycling")
    network = MHIM(
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
