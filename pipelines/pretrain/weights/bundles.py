"""Bundles of classifiers and policies, each with a golden pair of input and raw outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.preprocessing import described
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.noise_mask.policy import NoisePolicy
from vision_core.backbones.bundles import architecture, is_classifier, read_preprocessing
from vision_core.backbones.networks import build_backbone
from vision_core.backbones.settings import Preprocessing
from vision_core.bundles import bundle
from vision_core.bundles.bundle import Golden, Tensors
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError
from vision_core.randomness import key

TASK = "pretrain"
IMPORTED = "imported"  # method on the card of another program's weights
POLICY = "policy"  # folder beside the classifier's bundle, and method on its card
_GOLDEN_PX = 64
NO_CLASSES = "This bundle is a backbone without classes. Use it as source.weights of method=transfer."
_INDEPENDENT = "are_independent"


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Classifier from a bundle.

    Attributes:
        network: ``(B, 3, H, W)`` to logits ``(B, classes)``, or to features where the bundle has no head.
        card: Card of the bundle.
        preprocessing: Preprocessing of its images.
        are_independent: Whether an image may have several classes.
    """

    network: nn.Module
    card: Card
    preprocessing: Preprocessing
    are_independent: bool

    @property
    def backbone(self) -> str:
        """Name of its backbone."""
        return str(self.card.architecture["backbone"])


def describe_classifier(card: Card, backbone: str, data: PretrainData, *, are_independent: bool = False) -> Card:
    """Fill in architecture and preprocessing of a classifier's card.

    Args:
        card: Card with the classes.
        backbone: Name of the backbone.
        data: Settings of the training images.
        are_independent: Whether an image may have several classes.
    """
    network = architecture(backbone, len(card.classes)) | ({_INDEPENDENT: True} if are_independent else {})
    return card.model_copy(update={"architecture": network, "preprocessing": _preprocessing(data)})


def save_classifier(folder: Path, network: nn.Module, card: Card) -> Card:
    """Write a classifier as a bundle; its tensors keep the backbone's names.

    Args:
        folder: Folder of the bundle.
        network: Network from ``build_backbone``.
        card: Card from ``describe_classifier``.
    """
    name, count = str(card.architecture["backbone"]), len(card.classes)

    def answer(tensors: Tensors, inputs: Tensors) -> Tensors:
        return classifier_outputs(build_classifier(name, count, tensors), inputs)

    return bundle.save(folder, network.state_dict(), card, Golden(inputs={"image": _golden_image()}, answer=answer))


def load_classifier(path: Path, device: torch.device | str = "cpu") -> Classifier:
    """Load a classifier from a bundle; its weights are frozen.

    Raises:
        CheckpointError: As for ``bundle.load``; or the bundle holds no classifier, or is inconsistent.
    """
    content = bundle.load(path, TASK)
    card = content.card
    if not is_classifier(card):
        raise CheckpointError(
            f"'{path}' holds a {card.method}, no classifier. Give the folder 'model' of a run of pipelines.pretrain."
        )
    count = int(card.architecture["num_classes"])
    if count != len(card.classes):
        raise CheckpointError(
            f"'{path}': card.json lists {len(card.classes)} classes, the architecture has {count} outputs. "
            "The bundle is inconsistent; make it again."
        )
    return Classifier(
        network=build_classifier(str(card.architecture["backbone"]), count, content.tensors).to(device),
        card=card,
        preprocessing=read_preprocessing(path, card),
        are_independent=has_independent_classes(card),
    )


def has_independent_classes(card: Card) -> bool:
    """Whether the classifier was trained on images that may have several classes."""
    return bool(card.architecture.get(_INDEPENDENT))


def check_independence(path: Path, card: Card, *, are_independent: bool) -> None:
    """Refuse a classifier that was trained for another number of classes per image.

    Imported weights are not refused, since nothing is known of their training.

    Raises:
        CheckpointError: One has a single class per image, the other may have several.
    """
    is_trained_so = has_independent_classes(card)
    if card.method == IMPORTED or is_trained_so == are_independent:
        return
    kinds = {False: "one class each", True: "several classes, or none"}
    raise CheckpointError(
        f"'{path}' was trained on images of '{kinds[is_trained_so]}', these have '{kinds[are_independent]}'. "
        "Give a bundle that was trained on such images, or use method=transfer."
    )


def build_classifier(name: str, num_classes: int, tensors: Tensors) -> nn.Module:
    """Build a classifier from its weights, frozen and in inference mode.

    Raises:
        CheckpointError: The weights do not fit the architecture.
    """
    network = build_backbone(name, num_classes)
    _load(network, tensors)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def classifier_outputs(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensors:
    """Compute a classifier's raw outputs for the golden input."""
    device = next(network.parameters()).device
    return {"logits": network(inputs["image"].to(device)).float().cpu()}


def save_policy(folder: Path, policy: NoisePolicy, config: PretrainConfig, card: Card) -> Card:
    """Write a policy with its running bases as a bundle."""
    architecture_ = {
        "mask": config.mask.model_dump(mode="json"),
        "policy_input": config.policy_input,
        "bases": config.bases.model_dump(mode="json"),
        "image_px": config.data.image_px,
    }
    filled = card.model_copy(
        update={
            "method": POLICY,
            "architecture": architecture_,
            "preprocessing": _preprocessing(config.data),
            "classes": (),
        }
    )

    def answer(tensors: Tensors, inputs: Tensors) -> Tensors:
        return policy_outputs(_build_policy(filled, tensors), inputs)

    return bundle.save(folder, policy.state_dict(), filled, Golden(inputs={"image": _golden_image()}, answer=answer))


def load_policy(path: Path) -> tuple[NoisePolicy, PretrainConfig, Card]:
    """Load a policy from a bundle, frozen, with the settings of its masks and its card.

    Raises:
        CheckpointError: As for ``bundle.load``; or the bundle holds no policy.
    """
    content = bundle.load(path, TASK)
    if content.card.method != POLICY:
        raise CheckpointError(f"'{path}' holds no policy. Give the folder '{POLICY}' of a run with policy=reinforce.")
    return _build_policy(content.card, content.tensors), _policy_settings(content.card), content.card


@torch.no_grad()
def policy_outputs(policy: NoisePolicy, inputs: Mapping[str, Tensor]) -> Tensors:
    """Compute a policy's raw outputs for the golden input."""
    cells = policy.distributions(inputs["image"].to(policy.bases.log_alpha.device))
    return {"log_alpha": cells.log_alpha.float().cpu(), "log_beta": cells.log_beta.float().cpu()}


def _policy_settings(card: Card) -> PretrainConfig:
    keys = dict(card.architecture)
    try:
        return PretrainConfig.model_validate({"data": {"image_px": keys.pop("image_px"), "resize_px": 10**6}, **keys})
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"card.json: the architecture is not that of a policy ({error}).") from error


def _build_policy(card: Card, tensors: Tensors) -> NoisePolicy:
    settings = _policy_settings(card)
    bases = settings.bases
    policy = NoisePolicy(settings.mask.grid, settings.policy_input, share=bases.share, keep_rate=bases.keep_rate)
    _load(policy, tensors)
    return policy.eval().requires_grad_(False)


def _preprocessing(data: PretrainData) -> dict[str, Any]:
    return described(data) | {"values": "0 to 1", "grey": "repeat", "input_px": data.image_px}


def _load(module: nn.Module, tensors: Tensors) -> None:
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()
        raise CheckpointError(f"The weights do not fit the architecture: {first[:200]}") from error


def _golden_image() -> Tensor:
    generator = torch.Generator().manual_seed(key("golden"))
    return torch.randn(1, 3, _GOLDEN_PX, _GOLDEN_PX, generator=generator)
