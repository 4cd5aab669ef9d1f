"""Models of a run on its labelled lists: the learner between epochs, bundles at the end."""

from collections.abc import Mapping
from pathlib import Path

import torch

from pipelines.pretrain.config import Mask, PretrainConfig
from pipelines.pretrain.data.reading import Images
from pipelines.pretrain.data.views import CentreViews
from pipelines.pretrain.evaluation.scores import answers, masked_accuracy, score
from pipelines.pretrain.learner import CleanLearner, PretrainLearner
from pipelines.pretrain.noise_mask.beta import unlearned_cells
from pipelines.pretrain.noise_mask.mask import MaskSource, NoiseMask
from pipelines.pretrain.weights.bundles import NO_CLASSES, POLICY, Classifier, load_policy
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError
from vision_core.evaluation.rows import Row


def validate_learner(config: PretrainConfig, learner: CleanLearner, images: Images) -> dict[str, float]:
    """The scores of the learner as it is, macro F1 first; undefined ones are left out."""
    views, workers = CentreViews(images, config.data), config.train.workers
    network = learner.product().eval()
    row = score("val", images.name, answers(network, views, "validate", workers=workers), images.classes)
    hiding = learner.hiding() if isinstance(learner, PretrainLearner) else None
    metrics = {**row.metrics, **(masked_accuracy(network, views, hiding, workers) if hiding else {})}
    return {name: value for name, value in metrics.items() if value is not None}


def score_bundle(
    config: PretrainConfig, name: str, model: Classifier, views: CentreViews, hiding: MaskSource | None
) -> Row:
    """The scores of a bundle's classifier on a list, clean and, with ``hiding``, under masks."""
    workers = config.train.workers
    given = answers(model.network, views, f"evaluate {name}", workers=workers)
    row = score(name, views.images.name, given, model.card.classes)
    masked = masked_accuracy(model.network, views, hiding, workers) if hiding else {}
    return Row(
        model=name, split=row.split, counts=row.counts, metrics={**row.metrics, **masked}, per_class=row.per_class
    )


def check_scored(bundles: Mapping[str, Path], models: Mapping[str, Classifier]) -> None:
    """Refuse what has no scores, before an image is read.

    Raises:
        CheckpointError: A bundle has no classes.
    """
    for name, each in models.items():
        if not each.card.classes:
            raise CheckpointError(f"'{bundles[name]}': {NO_CLASSES}")


def hiding_beside(path: Path, card: Card, image_px: int) -> MaskSource | None:
    """The masks that a classifier was trained under: of the policy beside its bundle, or of the unlearned control.

    Args:
        path: The bundle.
        card: Its card.
        image_px: Side of the images to hide, which need not be that of the training.

    Raises:
        ConfigError: The masks do not fit on such images.
    """
    beside = path.parent / POLICY
    if beside.is_dir():
        noise, settings, _ = load_policy(beside)
        return MaskSource(cells=noise.bases.current().bounded(), mask=NoiseMask(settings.mask, image_px))
    if card.method != "pretrain" or card.config.get("policy") != "unlearned":
        return None
    mask = Mask.model_validate(card.config["mask"])
    cells = unlearned_cells(mask.unlearned_concentration, torch.empty(1), mask.grid**2)
    return MaskSource(cells=cells, mask=NoiseMask(mask, image_px))
