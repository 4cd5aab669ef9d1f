"""What a source detector leaves to those that start from it: how its boxes and features look at home."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.sfod.verdict.numbers import Source, prototypes_of
from pipelines.sfod.verdict.probing import Probe, Prober
from pipelines.sfod.verdict.rule import Rule
from pipelines.sfod.verdict.truth_map import TruthMap, fit_truth_map
from vision_core.bundles.bundle import amend, read_card
from vision_core.bundles.card import Card
from vision_core.console import track
from vision_core.detection.average_precision import match_image, ranked_places
from vision_core.detection.boxes import scale_boxes
from vision_core.detection.calibration import read_calibration
from vision_core.detection.datasets.records import DetectionDataset, ImageRecord
from vision_core.detection.predictor import DRAWN_SCORE
from vision_core.detection.weights.bundles import load_detector, prepare
from vision_core.errors import CheckpointError, EnvironmentFault
from vision_core.images.reading import read_noted_image
from vision_core.results import Detections

Floats = NDArray[np.float64]
RULE_FILE = Path(__file__).with_name("rule.json")  # written by ``make bench-sfod-verdict ARGS=--fit``
_DIGITS = 4  # significant ones of a feature


def store_statistics(path: Path, dataset: DetectionDataset, most: int, device: torch.device) -> tuple[str, ...]:
    """Write the statistics of a source on its own labelled images into its card; returns what was done.

    Args:
        path: The bundle, calibrated on the same list. A zip or a folder that cannot be changed stays as it is.
        dataset: The labelled list.
        most: Images to look at, evenly spaced.
        device: Where to compute.
    """
    card = read_card(path)
    calibration = read_calibration(card)
    if not path.is_dir() or calibration is None or calibration.all.operating_score is None or not most:
        return ()
    detector, _ = load_detector(path)
    count = min(most, len(dataset.records))
    records = [dataset.records[int(at)] for at in np.linspace(0, len(dataset.records) - 1, count).round()]
    prober = Prober(detector.to(device), calibration.all.operating_score)
    probes, right = [], []
    for record in track(records, count, "statistics of the source", "image"):
        pixels, _ = read_noted_image(record.path)
        image = prepare(pixels, detector.settings)
        probes.append(prober(image, record.image_id))
        found = to_detections(probes[-1], detector.classes, (image.shape[1], image.shape[2]), pixels.shape)
        right.append(_right(found, record, dataset.classes))
    made = _statistics(probes, np.concatenate(right))
    if made is None:
        return ()
    try:
        amend(path, calibration={**(card.calibration or {}), "statistics": {"images": count, **made}})
    except EnvironmentFault:
        return ()
    return (f"Statistics of boxes and features on {count} images of '{dataset.name}' are on the card.",)


def read_source(card: Card) -> tuple[Source, str]:
    """Read what a card tells of its detector, and in words what it lacks (empty if nothing).

    Raises:
        CheckpointError: The statistics cannot be read.
    """
    calibration = read_calibration(card)
    score = calibration.all.operating_score if calibration else None
    if calibration is None or score is None:
        return Source(operating_score=DRAWN_SCORE), f"no operating score, so {DRAWN_SCORE:g} is used, and no statistics"
    if calibration.statistics is None:
        return Source(operating_score=score), "no statistics of boxes and features"
    return _parsed(calibration.statistics, score), ""


def read_rule(card: Card) -> Rule | None:
    """Read the fitted rule of the package, for a source whose card has statistics; None for another one.

    None also where no rule was fitted yet.

    Raises:
        CheckpointError: The file of the package cannot be read.
    """
    calibration = read_calibration(card)
    if calibration is None or calibration.statistics is None or not RULE_FILE.exists():
        return None
    try:
        return Rule.from_record(json.loads(RULE_FILE.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{RULE_FILE}' is damaged: {error}. Install the package again.") from error


def _parsed(record: Mapping[str, Any], score: float) -> Source:
    try:
        prototypes = np.asarray(record["prototypes"], np.float64)
        counts = np.asarray(record["regions"], np.int64)
        floor = record.get("noise_floor")
        if prototypes.ndim != 2 or len(prototypes) != len(counts) or not np.isfinite(prototypes).all():
            raise ValueError("prototypes and regions do not fit each other")
        return Source(
            operating_score=score,
            truth_map=TruthMap.from_record(record["truth"]),
            prototypes=prototypes,
            known=counts > 0,
            noise_floor=None if floor is None else float(floor),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"card.json, calibration.statistics: {error}. Fetch the bundle again.") from error


def _statistics(probes: list[Probe], right: Floats) -> dict[str, Any] | None:
    """Fit the statistics; None where the detector finds nothing that can be right or wrong."""
    counted = np.isfinite(right)
    if not counted.any():
        return None
    scores, stabilities = (
        np.concatenate([getattr(each, name) for each in probes]) for name in ("scores", "stabilities")
    )
    truth = fit_truth_map(scores[counted], stabilities[counted], right[counted] > 0)
    means, _ = prototypes_of(probes)
    regions = np.sum([each.feature_counts for each in probes], axis=0)
    return {
        "truth": truth.to_record(),
        "prototypes": [[float(f"{value:.{_DIGITS}g}") for value in row] for row in means],
        "regions": regions.astype(int).tolist(),
    }


def to_detections(probe: Probe, classes: tuple[str, ...], size: tuple[int, int], shape: tuple[int, ...]) -> Detections:
    """Return all detections of a probe in pixels of the image itself.

    Args:
        probe: Of the image.
        classes: Of the detector.
        size: ``(height, width)`` of the image as it was given to the detector.
        shape: ``(height, width, 3)`` of the image.
    """
    boxes = scale_boxes(torch.from_numpy(probe.boxes), size, (shape[0], shape[1]))
    return Detections(
        boxes=boxes.numpy().astype(np.float32),
        scores=probe.scores.astype(np.float32),
        labels=probe.labels,
        classes=classes,
        image_size=(shape[0], shape[1]),
        model="",
    )


def _right(found: Detections, record: ImageRecord, classes: tuple[str, ...]) -> Floats:
    """Say of each detection whether it is right (1) or wrong (0); NaN where it matches what does not count."""
    right = np.full(len(found), np.nan)
    for label, name in enumerate(classes):
        outcomes = match_image(record, found, label, name).outcomes
        right[ranked_places(found, name)] = np.select([outcomes > 0, outcomes < 0], [1.0, 0.0], np.nan)
    return right
