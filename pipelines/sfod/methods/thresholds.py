"""Threshold of the pseudo labels, where it follows from the calibration of the source model or from its detections."""

from collections.abc import Mapping, Sequence
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.sfod.config import TEACHING, SfodConfig
from pipelines.sfod.predict import SfodPredictor
from vision_core.bundles.bundle import read_card
from vision_core.config.loading import replace
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.detection.evaluation import detect_all
from vision_core.errors import ConfigError
from vision_core.training import distributed
from vision_core.training.runtime import pick_device

_MOST_LOOKED_AT = 64  # images


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


def threshold_of_images(
    config: SfodConfig, dataset: DetectionDataset, source: Path | None
) -> tuple[SfodConfig, tuple[str, ...]]:
    """Take the threshold from what the source detects on the images, where ``pseudo_labels.per_image`` asks for it.

    The first process looks for all.

    Args:
        config: Settings of a run.
        dataset: The images to adapt to; 64 of them at most are looked at.
        source: Bundle that it starts from.

    Returns:
        The settings with a number as their threshold, and a note on it.
    """
    wanted = config.pseudo_labels.per_image
    if wanted is None or config.method not in TEACHING or source is None:
        return config, ()
    score, told = 0.0, ""
    if distributed.rank() == 0:
        places = np.unique(np.linspace(0, len(dataset.records) - 1, _MOST_LOOKED_AT).round().astype(int))
        some = replace_fields(dataset, records=tuple(dataset.records[place] for place in places.tolist()))
        predictor = SfodPredictor.from_checkpoint(source, pick_device(config.train.device))
        score, told = score_of_rank([each.scores for each in detect_all(predictor, some, "threshold")], wanted)
    score, told = distributed.broadcast_from_first((score, told))
    return replace(config, {"pseudo_labels.threshold": score, "pseudo_labels.per_image": None}), (told,)


def score_of_rank(scores: Sequence[NDArray[np.float32]], per_image: float) -> tuple[float, str]:
    """Find the score that so many detections an image exceed; returns a note on it.

    Args:
        scores: Of all detections of each image.
        per_image: How many an image, on average over the images.

    Returns:
        The score; 0 where there are no more detections than that.
    """
    ordered = np.sort(np.concatenate(scores))[::-1]
    wanted = round(per_image * len(scores))
    score = float(ordered[wanted]) if wanted < len(ordered) else 0.0
    told = (
        f"pseudo_labels.per_image={per_image:g}: the threshold is {score:.3f}, which {(ordered > score).sum()} "
        f"detections of the source on {len(scores)} images exceed."
    )
    return score, told
