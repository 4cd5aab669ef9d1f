"""Initial weights of a run: a source detector, a backbone, or random numbers."""

from pathlib import Path

import torch

from pipelines.sfod.config import SfodConfig
from vision_core.backbones.bundles import is_classifier
from vision_core.bundles import bundle
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.bundles import build_detector
from vision_core.detection.weights.detectron2_checkpoint import load_backbone
from vision_core.detection.weights.from_classifier import detector_from_classifier
from vision_core.errors import CheckpointError, ConfigError
from vision_core.randomness import key
from vision_core.training.learner import Start

DEMO_BUNDLE = Path(__file__).resolve().parents[2] / "demos" / "checkpoints" / "sfod-source"


def load_source_detector(config: SfodConfig) -> Start[Detector]:
    """Load ``source.weights``, or the demo's source bundle if empty.

    Raises:
        CheckpointError: No sound bundle, or its classes are not those of the data.
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
    _check_classes(path, content.card.classes, config.data.classes)
    build_detector(content)  # refuses weights, classes and settings that do not fit each other
    detector = Detector(DetectorSettings.model_validate(content.card.architecture), content.card.classes)
    detector.load_state_dict(content.tensors)
    notes = (f"Source: {content.card.identity()}, {content.card.trained_on.description}.",)
    return Start(module=detector, path=path, notes=notes)


def new_detector(config: SfodConfig, classes: tuple[str, ...]) -> tuple[Detector, tuple[str, ...]]:
    """Build a detector for source training, with notes on its weights.

    The weights are those of a detector's or a classifier's bundle, of a backbone, or random numbers.

    Raises:
        CheckpointError: The weights cannot be used.
        ConfigError: Both a bundle and an architecture are given.
    """
    weights = config.source.weights
    if weights and is_bundle(weights):
        if is_classifier(bundle.read_card(weights)):
            torch.manual_seed(key("init", config.train.seed))
            return detector_from_classifier(weights, classes, config.detector)
        start = load_source_detector(config)
        return start.module, start.notes
    settings = config.detector or DetectorSettings()
    torch.manual_seed(key("init", config.train.seed))
    detector = Detector(settings, classes)
    if weights or settings.backbone == "lite0":
        return detector, load_backbone(detector, weights)
    return detector, (
        f"Backbone: {settings.backbone} from random numbers; set source.weights to start from trained ones.",
    )


def is_bundle(path: Path) -> bool:
    """Check whether a path is a bundle (a folder or a zip)."""
    return path.is_dir() or path.suffix == ".zip"


def _check_classes(path: Path, found: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if not wanted or len(wanted) == len(found):
        return
    raise CheckpointError(
        f"'{path}' detects {len(found)} classes ({', '.join(found[:8])}), data.classes lists {len(wanted)}: the heads "
        "'roi_heads.box_predictor.cls_score' and '.bbox_pred' do not fit. Give data.classes as the model was trained, "
        "and data.eval_classes for a subset to score."
    )
