"""Fields of the cards of slide models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.wsi.config import ModelSettings, WsiConfig
from pipelines.wsi.evaluation.predictions import Predictions
from pipelines.wsi.features.bags import Bags, manifest
from pipelines.wsi.features.slide_processing import SlideProcessor
from pipelines.wsi.weights.bundles import DECISION, architecture
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import ConfigError
from vision_core.evaluation.calibration import calibrate
from vision_core.files import sha256
from vision_core.pipeline import weights_hash

LIMITS = (
    "Trained on the slides named here; of other laboratories, scanners, stains and organs its scores are not known. "
    "Tiles looked at most are not a diagnosis, nor an outline of a lesion."
)
_SELECTED_ON_TEST = "Epoch and threshold were chosen on the list that was reported: its figures are too good."


def trained_fields(config: WsiConfig, train: Bags, validated: Predictions, scope: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the fields of the card of a trained network.

    Args:
        config: Configuration of the run.
        train: Training bags.
        validated: Predictions on the validation list.
        scope: Record of the scope of the training slides.
    """
    data = config.data
    recycling = config.mhim_v2.recycling if config.method == "mhim_v2" and config.mhim_v2.recycling.at_test else None
    about = data.about or f"{data.format} of '{data.root or data.features}'"
    fold = "" if data.fold is None else f", fold {data.fold} of {data.folds}"
    description = f"{about}, list '{data.split}'{fold}: {len(train)} slides, labels by slide"
    # Slide processing is described by the settings where it ran here, else by the feature files.
    processing = config.model_dump(mode="json", include={"tissue", "tiles"}) if data.format == "slides" else {}
    fields = {
        "architecture": architecture(config.model, recycling),
        "preprocessing": {**processing, **train.made_with},
        "classes": train.classes,
        "trained_on": TrainedOn(
            description=description, synthetic=data.synthetic, manifest=manifest(train), licence=data.licence
        ),
        "parent": weights_hash(config.source.weights),
        "calibration": calibration_record(validated),
        "scope": dict(scope),
    }
    return fields | {"limits": f"{LIMITS} {_SELECTED_ON_TEST}"} if data.select_on_test else fields


def teacher_card(card: Card) -> Card:
    """Turn the card of a student into that of its teacher."""
    trained = card.trained_on.model_copy(update={"description": f"{card.trained_on.description}; its mean teacher"})
    return card.model_copy(update={"trained_on": trained})


def imported_fields(config: WsiConfig, model: ModelSettings, feature_dim: int, file: Path) -> dict[str, Any]:
    """Collect the fields of the card of foreign weights, whose training data is unknown.

    Raises:
        ConfigError: ``encoder`` names one that makes features of another width than ``feature_dim``.
    """
    description = f"unknown: imported from '{file.name}' (sha256 {sha256(file)})"
    return {
        "architecture": architecture(model),
        "preprocessing": _stated_origin(config, feature_dim),
        "classes": config.data.classes,
        "trained_on": TrainedOn(description=description, synthetic=False),
        "licence": "unknown",
    }


def _stated_origin(config: WsiConfig, feature_dim: int) -> dict[str, Any]:
    """Describe how the features of foreign weights were made, where a person states their encoder; else nothing."""
    if config.encoder == WsiConfig().encoder:
        return {}
    encoder = SlideProcessor(config, torch.device("cpu")).encoder
    if encoder.dim != feature_dim:
        raise ConfigError(
            f"encoder.name: '{encoder.name}' makes {encoder.dim} features a tile, the weights take {feature_dim}. Name "
            "the encoder whose features they were trained on, or leave encoder out."
        )
    sections = config.model_dump(mode="json", include={"tissue", "tiles"})
    scale = {"mpp": config.tiles.mpp, "tile_px": config.tiles.tile_px} if config.tiles.layout == "mpp" else {}
    return {**sections, "encoder": encoder.identity, **scale}


def calibration_record(found: Predictions) -> dict[str, Any]:
    """Fit threshold, temperature and conformal sets on validation predictions."""
    logits = np.log(np.maximum(found.probabilities, 1e-300))
    return {**calibrate(logits, found.labels).to_record(), DECISION: found.decision_threshold()}
