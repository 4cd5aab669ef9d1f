"""The classifier that a stage starts from: random, or out of a bundle, perhaps with a new head."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.reading import Images
from pipelines.pretrain.weights.bundles import TASK, check_independence, load_classifier
from vision_core.backbones.bundles import load_backbone
from vision_core.backbones.networks import backbone_spec, build_backbone
from vision_core.bundles import bundle
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError, ConfigError
from vision_core.randomness import key

_SMALLEST_PX = {"convnext_tiny": 32, "densenet121": 32, "densenet161": 32}  # all others take what data.image_px allows


@dataclass(frozen=True, kw_only=True)
class Start:
    """A classifier that can train.

    Attributes:
        classifier: With its starting weights.
        backbone: Its name.
        path: The bundle it came from, where that has the same classes.
        notes: What was found out on the way.
    """

    classifier: nn.Module
    backbone: str
    path: Path | None = None
    notes: tuple[str, ...] = ()


def starting_classifier(config: PretrainConfig, images: Images) -> Start:
    """What ``config.method`` begins with on the training list ``images``.

    Raises:
        CheckpointError: The bundle in ``source.weights`` cannot be used, or was trained for other classes.
        ConfigError: A later stage without ``source.weights``, or images that are too small for the network.
    """
    check_start(config, images)
    check_side(backbone_of(config), config.data.image_px)
    torch.manual_seed(key("init", config.train.seed))
    path, num_classes = config.source.weights, len(images.classes)
    if path is None:
        return Start(classifier=build_backbone(config.classifier, num_classes), backbone=config.classifier)
    return _with_new_head(path, num_classes) if _has_new_head(config, path) else _whole(path)


def expected_start(config: PretrainConfig, images: Images) -> Start:
    """A random classifier where an earlier run of the same command has yet to leave one: for a rehearsal."""
    check_side(config.classifier, config.data.image_px)
    return Start(
        classifier=build_backbone(config.classifier, len(images.classes)),
        backbone=config.classifier,
        notes=(f"Starts from what the run '{config.source.run}' will leave.",),
    )


def check_start(config: PretrainConfig, images: Images) -> None:
    """Refuse what ``starting_classifier`` would refuse by the card of the bundle alone.

    Raises:
        CheckpointError: The bundle is another task's, or was trained for other classes.
        ConfigError: A later stage without ``source.weights``.
    """
    path = config.source.weights
    if path is None:
        if config.method != "pretrain":
            raise ConfigError(
                f"method '{config.method}' starts from a pretrained classifier and source.weights is empty. "
                "Give the folder 'model' of a run, or a bundle that import-weights has made."
            )
    elif not _has_new_head(config, path):
        _compare_classes(path, bundle.read_card(path, TASK), images)


def check_side(backbone: str, image_px: int) -> None:
    """Refuse images of which nothing would be left after all strides of a network.

    Raises:
        ConfigError: They are smaller than it takes.
    """
    smallest = _SMALLEST_PX.get(backbone, 0)
    if image_px < smallest:
        raise ConfigError(
            f"data.image_px '{image_px}' is too small for a {backbone}. "
            f"Set it to {smallest} or more, or choose another classifier."
        )


def backbone_of(config: PretrainConfig) -> str:
    """Name of the network that a run trains: that of the bundle it starts from, if it starts from one."""
    path = config.source.weights
    return str(bundle.read_card(path).architecture.get("backbone")) if path else config.classifier


def head_of(backbone: str) -> str:
    """Name of the classifier's last layer within the network."""
    return backbone_spec(backbone).classifier


def _has_new_head(config: PretrainConfig, path: Path) -> bool:
    return config.method == "transfer" or not bundle.read_card(path).classes


def _compare_classes(path: Path, card: Card, images: Images) -> None:
    if card.classes != images.classes:
        strange = sorted(set(card.classes) ^ set(images.classes))
        where = f"first that only one has: '{strange[0]}'" if strange else "in another order"
        raise CheckpointError(
            f"'{path}' tells {len(card.classes)} classes apart, the data has {len(images.classes)} ({where}). "
            "Use method=transfer for other classes."
        )
    check_independence(path, card, are_independent=images.is_multi_label)


def _whole(path: Path) -> Start:
    found = load_classifier(path)
    return Start(
        classifier=found.network.requires_grad_(True), backbone=found.backbone, path=path, notes=(_from(found.card),)
    )


def _with_new_head(path: Path, num_classes: int) -> Start:
    found = load_backbone(path)
    network = build_backbone(found.spec.name, num_classes)
    network.load_state_dict(dict(found.tensors), strict=False)  # all fit: load_backbone has compared them
    told = f"The head '{found.spec.classifier}' is new."
    return Start(classifier=network, backbone=found.spec.name, notes=(_from(found.card), told))


def _from(card: Card) -> str:
    return f"Source: {card.identity()}, a {card.architecture['backbone']}; {card.trained_on.description}."
