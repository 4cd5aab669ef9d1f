"""Initial network of a run: random, of ImageNet, from a classifier's bundle, or from one of this task."""

from pathlib import Path

import torch

from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.screening.screen import Screen, screen_backbone
from pipelines.ultrasound.weights.bundles import TASK, Network, check_kind, load_network
from vision_core.backbones.bundles import load_backbone
from vision_core.backbones.networks import backbone_spec, lite0_imagenet
from vision_core.bundles.bundle import read_card
from vision_core.errors import CheckpointError, ConfigError
from vision_core.randomness import key
from vision_core.segmentation.networks import ResidualUNet
from vision_core.training.learner import Start


def initial_network(config: UltrasoundConfig) -> Start[Network]:
    """Make the network that a run starts from.

    Raises:
        CheckpointError: The bundle in ``source.weights`` cannot be used, or has another architecture.
        ConfigError: A segmenter shall start from a classifier.
    """
    torch.manual_seed(key("init", config.train.seed))
    path = config.source.weights
    if path is None:
        return _anew(config)
    card = read_card(path)
    if card.task != TASK:
        return _from_classifier(config, path)
    check_kind(path, card, "screen" if config.is_screen else "segmenter")
    network, *others = load_network(path).model.networks
    if others:
        raise CheckpointError(f"'{path}' holds '{1 + len(others)}' networks, a run starts from one. Give one of them.")
    network.requires_grad_(True)
    wanted = config.screen if config.is_screen else config.segmenter
    if network.settings != wanted:
        raise CheckpointError(
            f"'{path}' has the network '{_told(network.settings)}', the settings ask for '{_told(wanted)}'. "
            f"Set {'screen' if config.is_screen else 'segmenter'}.* as the bundle has it."
        )
    return Start(module=network, path=path, notes=(f"Source: {card.identity()}; {card.trained_on.description}.",))


def _anew(config: UltrasoundConfig) -> Start[Network]:
    if not config.is_screen:
        return Start(module=ResidualUNet(config.segmenter))
    screen = Screen(config.screen)
    if not (config.screen.network == "lite0" and config.screen.imagenet):
        return Start(module=screen)
    head = backbone_spec("lite0").classifier
    weights = {name: each for name, each in lite0_imagenet().items() if not name.startswith(f"{head}.")}
    screen.network.load_state_dict(weights, strict=False)
    return Start(module=screen, notes=("Source: EfficientNet-Lite0 of ImageNet; the head is new.",))


def _from_classifier(config: UltrasoundConfig, path: Path) -> Start[Network]:
    if not config.is_screen:
        raise ConfigError(f"source.weights '{path}' is a classifier; a screen can start from it, no segmenter.")
    found = load_backbone(path)
    if found.spec.name != config.screen.network:
        raise ConfigError(
            f"source.weights '{path}' is a '{found.spec.name}', screen.network is '{config.screen.network}'. "
            f"Set screen.network={found.spec.name}."
        )
    screen = Screen(config.screen, found.preprocessing)
    network = screen_backbone(found.spec.name)
    network.load_state_dict(dict(found.tensors), strict=False)  # load_backbone has checked that all but the head fit
    screen.network = network
    note = (
        f"Source: {found.card.identity()}, a {found.spec.name}; {found.card.trained_on.description}. The head is new."
    )
    return Start(module=screen, notes=(note,))


def _told(settings: object) -> str:
    return str(settings)
