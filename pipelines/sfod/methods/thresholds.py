"""Threshold of the pseudo labels, where it follows from the calibration of the source model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.sfod.config import TEACHING, SfodConfig
from vision_core.bundles.bundle import read_card
from vision_core.config.loading import replace
from vision_core.errors import ConfigError


def read_sure_score(bundle: Path | None) -> float | None:
    """Read the score from which on nine of ten detections were right on the source's validation list, if known.

    Args:
        bundle: The source; its card may hold a calibration, by class and of all classes together.
    """
    return sure_score(read_card(bundle).calibration) if bundle else None


def sure_score(calibration: Mapping[str, Any] | None) -> float | None:
    """Find the score in the calibration of a card; None where it is missing or no such score was found."""
    of_all = (calibration or {}).get("all")
    found = of_all.get("sure_score") if isinstance(of_all, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if 0 <= found <= 1 else None


def resolve_threshold(config: SfodConfig, source: Path | None) -> tuple[SfodConfig, tuple[str, ...]]:
    """Replace ``pseudo_labels.threshold=auto`` by a number; returns a note on it.

    Args:
        config: Settings of a run.
        source: Bundle that it starts from.

    Raises:
        ConfigError: The card of the source has no such score.
    """
    if config.pseudo_labels.threshold != "auto" or config.method not in TEACHING:
        return config, ()
    score = read_sure_score(source)
    if score is None:
        raise ConfigError(
            f"pseudo_labels.threshold=auto: the card of '{source}' has no score from which on nine of ten detections "
            "are right on its validation list. Give a number, such as 0.7, or a source model with a calibration."
        )
    told = (
        f"pseudo_labels.threshold=auto is {score:.3f}: from there on the source is right nine times of ten on its "
        "validation list."
    )
    return replace(config, {"pseudo_labels.threshold": score}), (told,)
