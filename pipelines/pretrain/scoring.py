"""Models of a run on its labelled lists: the learner between epochs, bundles at the end."""

from pathlib import Path

import torch

from pipelines.pretrain.beta import unlearned_cells
from pipelines.pretrain.bundles import POLICY, Classifier, load_policy
from pipelines.pretrain.config import Mask, PretrainConfig
from pipelines.pretrain.data import Images
from pipelines.pretrain.evaluate import Hiding, answers, masked_accuracy, score
from pipelines.pretrain.learner import CleanLearner, PretrainLearner
from pipelines.pretrain.mask import NoiseMask
from pipelines.pretrain.views import CentreViews
from vision_core.bundle import Card
from vision_core.evaluation import Row


def validate_learner(config: PretrainConfig, learner: CleanLearner, images: Images) -> dict[str, float]:
    """The scores of the learner as it is, macro F1 first; undefined ones are left out."""
    views, workers = CentreViews(images, config.data), config.train.workers
    network = learner.product().eval()
    row = score("val", images.name, answers(network, views, "validate", workers=workers), images.classes)
    hiding = learner.hiding() if isinstance(learner, PretrainLearner) else None
    metrics = {**row.metrics, **(masked_accuracy(network, views, hiding, workers) if hiding else {})}
    return {name: value for name, value in metrics.items() if value is not None}


def score_bundle(
    config: PretrainConfig, name: str, model: Classifier, views: CentreViews, hiding: Hiding | None
) -> Row:
    """The scores of a bundle's classifier on a list, clean and, with ``hiding``, under masks."""
    workers = config.train.workers
    given = answers(model.network, views, f"evaluate {name}", workers=workers)
    row = score(name, views.images.name, given, model.card.classes)
    masked = masked_accuracy(model.network, views, hiding, workers) if hiding else {}
    return Row(
        model=name, split=row.split, counts=row.counts, metrics={**row.metrics, **masked}, per_class=row.per_class
    )


def hiding_beside(path: Path, card: Card) -> Hiding | None:
    """The masks that a classifier was trained under: of the policy beside its bundle, or of the unlearned control."""
    beside = path.parent / POLICY
    if beside.is_dir():
        noise, settings, _ = load_policy(beside)
        return Hiding(cells=noise.bases.current().bounded(), mask=NoiseMask(settings.mask, settings.data.image_px))
    if card.method != "pretrain" or card.config.get("policy") != "unlearned":
        return None
    mask = Mask.model_validate(card.config["mask"])
    cells = unlearned_cells(mask.unlearned_concentration, torch.empty(1), mask.grid**2)
    return Hiding(cells=cells, mask=NoiseMask(mask, int(card.config["data"]["image_px"])))
