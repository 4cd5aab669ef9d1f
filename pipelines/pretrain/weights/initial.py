"""Initial classifier of a stage: random, or from a bundle, with its own head or a new one."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.reading import Images
from pipelines.pretrain.weights.bundles import TASK, check_independence, load_classifier
from pipelines.pretrain.weights.classes import in_order, match_classes
from vision_core.backbones.bundles import load_backbone
from vision_core.backbones.networks import backbone_spec, build_backbone
from vision_core.bundles import bundle
from vision_core.bundles.card import Card
from vision_core.errors import ConfigError
from vision_core.randomness import key
from vision_core.training.learner import Start

_SMALLEST_PX = {"convnext_tiny": 32, "densenet121": 32, "densenet161": 32}  # all others take what data.image_px allows


@dataclass(frozen=True, kw_only=True)
class InitialClassifier(Start[nn.Module]):
    """Classifier with the weights that a run starts from.

    Attributes:
        backbone: Name of its backbone.
    """

    backbone: str


def initial_classifier(config: PretrainConfig, images: Images) -> InitialClassifier:
    """Make the classifier from which a run starts on its training list ``images``.

    Raises:
        CheckpointError: The bundle in ``source.weights`` cannot be used, or was trained for other classes.
        ConfigError: A later stage without ``source.weights``, or images that are too small for the network.
    """
    check_source(config, images)
    check_image_size(backbone_of(config), config.data.image_px)
    torch.manual_seed(key("init", config.train.seed))
    path, num_classes = config.source.weights, len(images.classes)
    if path is None:
        return InitialClassifier(module=build_backbone(config.classifier, num_classes), backbone=config.classifier)
    return _with_new_head(path, num_classes) if _needs_new_head(config, path) else _with_own_head(path, images.classes)


def placeholder_classifier(config: PretrainConfig, images: Images) -> InitialClassifier:
    """Make a random classifier, for the rehearsal of a run whose predecessor is not trained yet."""
    check_image_size(config.classifier, config.data.image_px)
    return InitialClassifier(
        module=build_backbone(config.classifier, len(images.classes)),
        backbone=config.classifier,
        notes=(f"Starts from the result of the run '{config.source.run}', which is not trained yet.",),
    )


def check_source(config: PretrainConfig, images: Images) -> None:
    """Refuse an unsuitable ``source.weights`` by the card of its bundle alone.

    Raises:
        CheckpointError: The bundle is of another task, or was trained for other classes.
        ConfigError: A later stage without ``source.weights``.
    """
    path = config.source.weights
    if path is None:
        if config.method != "pretrain":
            raise ConfigError(
                f"method '{config.method}' starts from a pretrained classifier and source.weights is empty. "
                "Give the folder 'model' of a run, or a bundle that import-weights has made."
            )
    elif not _needs_new_head(config, path):
        _check_classes(path, bundle.read_card(path, TASK), images)


def check_image_size(backbone: str, image_px: int) -> None:
    """Refuse images that are too small for the strides of a network.

    Raises:
        ConfigError: They are smaller than its smallest input.
    """
    smallest = _SMALLEST_PX.get(backbone, 0)
    if image_px < smallest:
        raise ConfigError(
            f"data.image_px '{image_px}' is too small for a {backbone}. "
            f"Set it to {smallest} or more, or choose another classifier."
        )


def backbone_of(config: PretrainConfig) -> str:
    """Name the backbone that a run trains: that of its initial bundle, if there is one."""
    path = config.source.weights
    return str(bundle.read_card(path).architecture.get("backbone")) if path else config.classifier


def _needs_new_head(config: PretrainConfig, path: Path) -> bool:
    return config.method == "transfer" or not bundle.read_card(path).classes


def _check_classes(path: Path, card: Card, images: Images) -> None:
    match_classes(path, card.classes, images.classes, "Use method=transfer for other classes.")
    check_independence(path, card, are_independent=images.is_multi_label)


def _with_own_head(path: Path, classes: tuple[str, ...]) -> InitialClassifier:
    found, notes = load_classifier(path), []
    if found.card.classes != classes:
        head = backbone_spec(found.backbone).classifier
        found.network.load_state_dict(in_order(found.network.state_dict(), head, found.card.classes, classes))
        notes.append("Classes: the bundle has them in another order; its head is put into that of the data, by name.")
    return InitialClassifier(
        module=found.network.requires_grad_(True),
        backbone=found.backbone,
        path=path,
        notes=(_source_note(found.card), *notes),
    )


def _with_new_head(path: Path, num_classes: int) -> InitialClassifier:
    found = load_backbone(path)
    network = build_backbone(found.spec.name, num_classes)
    network.load_state_dict(dict(found.tensors), strict=False)  # load_backbone has checked that all fit
    note = f"The head '{found.spec.classifier}' is new."
    return InitialClassifier(module=network, backbone=found.spec.name, notes=(_source_note(found.card), note))


def _source_note(card: Card) -> str:
    return f"Source: {card.identity()}, a {card.architecture['backbone']}; {card.trained_on.description}."
