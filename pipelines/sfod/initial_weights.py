"""Initial weights of a run: a source detector, a backbone, or random numbers."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipelines.sfod.config import SfodConfig
from vision_core.backbones.bundles import is_classifier
from vision_core.bundles import bundle
from vision_core.bundles.bundle import refuse_other_task
from vision_core.detection.datasets.checks import near_name
from vision_core.detection.datasets.reading import DetectionDataset
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectionData, DetectorSettings
from vision_core.detection.weights.bundles import build_detector
from vision_core.detection.weights.detectron2_checkpoint import detector_on_backbone
from vision_core.detection.weights.from_classifier import detector_from_classifier
from vision_core.errors import CheckpointError, ConfigError
from vision_core.randomness import key
from vision_core.training.learner import Start

_SHOWN = 8
DEMO_BUNDLE = Path(__file__).resolve().parents[2] / "demos" / "checkpoints" / "sfod-source"


def load_source_detector(config: SfodConfig) -> Start[Detector]:
    """Load ``source.weights``, or the demo's source bundle if empty.

    The detector keeps the order of its classes, whatever the order of ``data.classes``.

    Raises:
        CheckpointError: No sound bundle, or its classes are not those of ``data.classes`` by name.
        ConfigError: The configuration describes another architecture than the bundle brings.
    """
    if config.detector is not None:
        raise ConfigError("detector: the architecture comes with the bundle in source.weights; remove this section.")
    path = config.source.weights or DEMO_BUNDLE
    content = bundle.load(path)
    if is_classifier(content.card):
        raise CheckpointError(
            f"'{path}' holds a classifier ({content.card.identity()}), and adaptation starts from a detector. Train "
            f"one from it on labelled images first: method=source source.weights={path}."
        )
    refuse_other_task(path, content.card, SfodConfig.task)
    order = _match_classes(path, content.card.classes, config.data.classes)
    build_detector(content)  # refuses weights, classes and settings that do not fit each other
    detector = Detector(DetectorSettings.model_validate(content.card.architecture), content.card.classes)
    detector.load_state_dict(content.tensors)
    notes = (f"Source: {content.card.identity()}, {content.card.trained_on.description}.", *order)
    return Start(module=detector, path=path, notes=notes)


def new_detector(config: SfodConfig, classes: tuple[str, ...]) -> tuple[Detector, tuple[str, ...]]:
    """Build a detector for source training, with notes on its weights.

    The weights are those of a detector's or a classifier's bundle, of a backbone, or random numbers. A detector's
    bundle brings its classes in its own order; ``in_classes`` puts the labels into it.

    Raises:
        CheckpointError: The weights cannot be used, or the detector lacks a class of the data.
        ConfigError: Both a bundle and an architecture are given.
    """
    weights = config.source.weights
    if weights and is_bundle(weights):
        if is_classifier(bundle.read_card(weights)):
            torch.manual_seed(key("init", config.train.seed))
            return detector_from_classifier(weights, classes, config.detector)
        start = load_source_detector(config)
        return start.module, start.notes + (() if config.data.classes else _known_classes(weights, start, classes))
    settings = config.detector or DetectorSettings()
    torch.manual_seed(key("init", config.train.seed))
    if weights or settings.backbone == "lite0":
        return detector_on_backbone(settings, classes, weights, key=config.source.weights_key)
    return Detector(settings, classes), (
        f"Backbone: {settings.backbone} from random numbers; set source.weights to start from trained ones.",
    )


def is_bundle(path: Path) -> bool:
    """Check whether a path is a bundle (a folder or a zip)."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def in_classes(dataset: DetectionDataset, classes: tuple[str, ...]) -> DetectionDataset:
    """Number the labels of a data set by other ``classes``, matched by name."""
    if dataset.classes == classes:
        return dataset
    numbers = np.array([classes.index(name) for name in dataset.classes], dtype=np.int64)
    records = tuple(replace(record, labels=numbers[record.labels]) for record in dataset.records)
    return replace(dataset, classes=classes, records=records)


def check_source(config: SfodConfig, classes: tuple[str, ...]) -> None:
    """Refuse what source training on labels of ``classes`` cannot start from, in ``source.weights``.

    Raises:
        CheckpointError: As for ``new_detector``.
        ConfigError: As for ``new_detector``.
    """
    if config.source.weights:
        new_detector(config, classes)


def check_eval_classes(data: DetectionData) -> None:
    """Refuse names in ``data.eval_classes`` that are none of the classes, or stand there twice.

    Raises:
        ConfigError: One does.
    """
    for name, count in Counter(data.eval_classes).items():
        if name not in data.classes:
            hint = near_name(name, data.classes)
            raise ConfigError(f"data.eval_classes names '{name}', which is no class of the detector. {hint}")
        if count > 1:
            raise ConfigError(f"data.eval_classes names '{name}' more than once. Name each class once.")


def check_scored_classes(model: str, found: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """Refuse a class to score that the model does not detect.

    Raises:
        CheckpointError: A name of ``wanted`` is not among ``found``.
    """
    if unknown := [name for name in wanted if name not in found]:
        raise CheckpointError(
            f"data.classes: '{', '.join(unknown[:_SHOWN])}' is not detected by '{model}', whose classes are "
            f"'{', '.join(found[:_SHOWN])}'. Give data.classes by these names, or none."
        )


def _match_classes(path: Path, found: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Compare a bundle's classes with ``data.classes`` by name; a note tells of another order.

    Raises:
        CheckpointError: Their number differs, or a name.
    """
    if not wanted or wanted == found:
        return ()
    if len(wanted) != len(found):
        raise CheckpointError(
            f"'{path}' detects {len(found)} classes ({', '.join(found[:_SHOWN])}), data.classes lists {len(wanted)}: "
            "the heads 'roi_heads.box_predictor.cls_score' and '.bbox_pred' do not fit. Give data.classes as the model "
            "was trained, and data.eval_classes for a subset to score."
        )
    if unknown := [name for name in wanted if name not in found]:
        raise CheckpointError(
            f"'{path}' detects '{', '.join(found[:_SHOWN])}', data.classes names '{', '.join(unknown[:_SHOWN])}', "
            "which is none of them. Give data.classes by the model's names, or weights trained on these classes."
        )
    return (_order_note(found, wanted),)


def _known_classes(path: Path, start: Start[Detector], names: tuple[str, ...]) -> tuple[str, ...]:
    """Check that a detector knows all classes of the labels; a note tells of another order.

    Raises:
        CheckpointError: The labels name a class that the detector lacks.
    """
    found = start.module.classes
    if unknown := [name for name in names if name not in found]:
        raise CheckpointError(
            f"'{path}' detects '{', '.join(found[:_SHOWN])}', the labels name '{', '.join(unknown[:_SHOWN])}' too. "
            f"Give data.classes=[{','.join(found[:_SHOWN])}] to read objects of these names alone, or weights "
            "trained on these classes."
        )
    return () if names == found else (_order_note(found, names),)


def _order_note(found: tuple[str, ...], given: tuple[str, ...]) -> str:
    return (
        f"Classes: '{', '.join(found)}', in the order of the bundle; the data's '{', '.join(given)}' are matched by "
        "name."
    )
