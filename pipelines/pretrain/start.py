"""The classifier that a stage starts from: random, or out of a bundle, perhaps with a new head."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipelines.pretrain.bundles import load_classifier
from pipelines.pretrain.config import PretrainConfig
from vision_core import bundle
from vision_core.backbone_bundles import load_backbone
from vision_core.backbones import backbone_spec, build_backbone
from vision_core.errors import CheckpointError, ConfigError
from vision_core.randomness import key


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


def starting_classifier(config: PretrainConfig, classes: tuple[str, ...]) -> Start:
    """What ``config.method`` begins with.

    Raises:
        CheckpointError: The bundle in ``source.weights`` cannot be used, or has other classes.
        ConfigError: A later stage without ``source.weights``.
    """
    torch.manual_seed(key("init", config.train.seed))
    path = config.source.weights
    if path is None:
        if config.method != "pretrain":
            raise ConfigError(
                f"method '{config.method}' starts from a pretrained classifier and source.weights is empty. "
                "Give the folder 'model' of a run, or a bundle that import-weights has made."
            )
        return Start(classifier=build_backbone(config.classifier, len(classes)), backbone=config.classifier)
    card = bundle.read_card(path)
    if config.method == "transfer" or not card.classes:
        return _with_new_head(path, len(classes))
    return _whole(path, classes)


def head_of(backbone: str) -> str:
    """Name of the classifier's last layer within the network."""
    return backbone_spec(backbone).classifier


def weights_hash(path: Path | None) -> str | None:
    """sha256 of the weights in a bundle, if a run starts from one."""
    return bundle.read_card(path).hashes["weights.safetensors"] if path else None


def _whole(path: Path, classes: tuple[str, ...]) -> Start:
    found = load_classifier(path)
    if found.card.classes != classes:
        strange = sorted(set(found.card.classes) ^ set(classes))
        where = f"first that only one has: '{strange[0]}'" if strange else "in another order"
        raise CheckpointError(
            f"'{path}' tells {len(found.card.classes)} classes apart, the data has {len(classes)} ({where}). "
            "Use method=transfer for other classes."
        )
    return Start(
        classifier=found.network.requires_grad_(True), backbone=found.backbone, path=path, notes=(_from(found.card),)
    )


def _with_new_head(path: Path, num_classes: int) -> Start:
    found = load_backbone(path)
    network = build_backbone(found.spec.name, num_classes)
    network.load_state_dict(dict(found.tensors), strict=False)  # all fit: load_backbone has compared them
    told = f"The head '{found.spec.classifier}' is new."
    return Start(classifier=network, backbone=found.spec.name, notes=(_from(found.card), told))


def _from(card: bundle.Card) -> str:
    return f"Source: {card.identity()}, a {card.architecture['backbone']}; {card.trained_on.description}."
