"""Scores of a run's models: of the learner between epochs, of bundles at the end."""

from collections.abc import Mapping
from pathlib import Path

import torch

from pipelines.pretrain.config import Mask, PretrainConfig
from pipelines.pretrain.data.reading import Images
from pipelines.pretrain.data.views import CentreViews
from pipelines.pretrain.evaluation.scores import predict_masked, score
from pipelines.pretrain.learner import CleanLearner, PretrainLearner
from pipelines.pretrain.noise_mask.beta import unlearned_cells
from pipelines.pretrain.noise_mask.mask import NoiseMask, SharedMasks
from pipelines.pretrain.weights.bundles import NO_CLASSES, POLICY, Classifier, load_policy
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError
from vision_core.evaluation.rows import Row
from vision_core.training.runtime import num_workers


def validate_learner(config: PretrainConfig, learner: CleanLearner, images: Images) -> dict[str, float]:
    """Score the learner on a list, macro F1 first; undefined scores are left out."""
    views, network = CentreViews(images, config.data), learner.product().eval()
    workers = num_workers(config.train.workers, next(network.parameters()).device)
    masks = learner.shared_masks() if isinstance(learner, PretrainLearner) else None
    predictions, masked = predict_masked(network, views, "validate", masks, workers)
    metrics = {**score("val", images.name, predictions, images.classes).metrics, **masked}
    return {name: value for name, value in metrics.items() if value is not None}


def score_bundle(
    config: PretrainConfig, name: str, model: Classifier, views: CentreViews, masks: SharedMasks | None
) -> Row:
    """Score a bundle's classifier on a list: on clean images and, given ``masks``, under them."""
    workers = num_workers(config.train.workers, next(model.network.parameters()).device)
    predictions, masked = predict_masked(model.network, views, f"evaluate {name}", masks, workers)
    row = score(name, views.images.name, predictions, model.card.classes)
    return Row(
        model=name, split=row.split, counts=row.counts, metrics={**row.metrics, **masked}, per_class=row.per_class
    )


def check_classes(bundles: Mapping[str, Path], models: Mapping[str, Classifier]) -> None:
    """Refuse a bundle without classes before any image is read.

    Raises:
        CheckpointError: A bundle has no classes.
    """
    for name, each in models.items():
        if not each.card.classes:
            raise CheckpointError(f"'{bundles[name]}': {NO_CLASSES}")


def load_training_masks(path: Path, card: Card, image_px: int) -> SharedMasks | None:
    """Load the masks of a classifier's training: those of the policy beside its bundle, or unlearned ones.

    Args:
        path: Bundle of the classifier.
        card: Its card.
        image_px: Side of the images to mask, which may differ from that of the training.

    Raises:
        ConfigError: The masks do not fit on images of this side.
    """
    beside = path.parent / POLICY
    if beside.is_dir():
        policy, settings, _ = load_policy(beside)
        mask = NoiseMask.from_settings(settings.mask, image_px)
        return SharedMasks(cells=policy.bases.cells().clamped(), mask=mask)
    if card.method != "pretrain" or card.config.get("policy") != "unlearned":
        return None
    section = Mask.model_validate(card.config["mask"])
    cells = unlearned_cells(section.unlearned_concentration, torch.empty(1), section.grid**2)
    return SharedMasks(cells=cells, mask=NoiseMask.from_settings(section, image_px))
