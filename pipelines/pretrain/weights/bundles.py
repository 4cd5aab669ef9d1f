"""Classifiers and policies in and out of bundles, each with a golden pair on raw outputs."""

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
IMPORTED = "imported"  # the method on the card of another program's weights
POLICY = "policy"  # name of the folder beside the classifier's bundle, and the method on its card
_GOLDEN_PX = 64
NO_CLASSES = "This bundle is a backbone without classes. Use it as source.weights of method=transfer."
_SEVERAL = "are_independent"


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A classifier from a bundle.

    Attributes:
        network: Gives logits ``(B, classes)``; features where the bundle has no head.
        card: What the bundle says of itself.
        preprocessing: What an image goes through.
        are_independent: Whether an image may have several classes.
    """

    network: nn.Module
    card: Card
    preprocessing: Preprocessing
    are_independent: bool

    @property
    def backbone(self) -> str:
        """Its name."""
        return str(self.card.architecture["backbone"])


def describe_classifier(card: Card, backbone: str, data: PretrainData, *, are_independent: bool = False) -> Card:
    """``card`` with architecture and preprocessing filled in.

    Args:
        card: With the classes.
        backbone: Its name.
        data: What its images went through.
        are_independent: Whether an image may have several classes.
    """
    several = {_SEVERAL: True} if are_independent else {}
    filled = {
        "architecture": architecture(backbone, len(card.classes)) | several,
        "preprocessing": preprocessing(data),
    }
    return card.model_copy(update=filled)


def save_classifier(folder: Path, network: nn.Module, card: Card) -> Card:
    """Write a classifier under the names of its backbone.

    Args:
        folder: Where the bundle will stand.
        network: Of ``build_backbone``.
        card: Of ``describe_classifier``.
    """
    name, count = str(card.architecture["backbone"]), len(card.classes)

    def answer(tensors: Tensors, inputs: Tensors) -> Tensors:
        return answered(built_classifier(name, count, tensors), inputs)

    return bundle.save(folder, network.state_dict(), card, Golden(inputs={"image": _image()}, answer=answer))


def load_classifier(path: Path, device: torch.device | str = "cpu") -> Classifier:
    """A frozen classifier.

    Raises:
        CheckpointError: As for ``bundle.load``; it holds no classifier, or its parts do not fit each other.
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
        network=built_classifier(str(card.architecture["backbone"]), count, content.tensors).to(device),
        card=card,
        preprocessing=read_preprocessing(path, card),
        are_independent=has_independent_classes(card),
    )


def has_independent_classes(card: Card) -> bool:
    """Whether the classifier of a card was trained for images that may have several classes."""
    return bool(card.architecture.get(_SEVERAL))


def check_independence(path: Path, card: Card, *, are_independent: bool) -> None:
    """Compare what a classifier was trained for with images, of which each has one class or may have several.

    Of imported weights it is not known, and nothing is refused.

    Raises:
        CheckpointError: They differ.
    """
    is_trained_so = has_independent_classes(card)
    if card.method == IMPORTED or is_trained_so == are_independent:
        return
    kinds = {False: "one class each", True: "several classes, or none"}
    raise CheckpointError(
        f"'{path}' was trained on images of '{kinds[is_trained_so]}', these have '{kinds[are_independent]}'. "
        "Give a bundle that was trained on such images, or use method=transfer."
    )


def built_classifier(name: str, num_classes: int, tensors: Tensors) -> nn.Module:
    """A frozen network in inference with these weights.

    Raises:
        CheckpointError: They are not of this architecture.
    """
    network = build_backbone(name, num_classes)
    _load(network, tensors)
    return network.eval().requires_grad_(False)


def preprocessing(data: PretrainData) -> dict[str, Any]:
    """What an image went through, for every reader of the card."""
    known = {"values": "0 to 1", "grey": "repeat", "input_px": data.image_px}
    return described(data) | known


@torch.no_grad()
def answered(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensors:
    """Raw outputs for the golden input."""
    device = next(network.parameters()).device
    return {"logits": network(inputs["image"].to(device)).float().cpu()}


def save_policy(folder: Path, noise: NoisePolicy, config: PretrainConfig, card: Card) -> Card:
    """Write a policy with its running bases: what draws masks over images, for looking at."""
    described_ = {
        "mask": config.mask.model_dump(mode="json"),
        "policy_input": config.policy_input,
        "bases": config.bases.model_dump(mode="json"),
        "image_px": config.data.image_px,
    }
    filled = card.model_copy(
        update={
            "method": POLICY,
            "architecture": described_,
            "preprocessing": preprocessing(config.data),
            "classes": (),
        }
    )

    def answer(tensors: Tensors, inputs: Tensors) -> Tensors:
        return policy_answer(_built_policy(filled, tensors), inputs)

    return bundle.save(folder, noise.state_dict(), filled, Golden(inputs={"image": _image()}, answer=answer))


def load_policy(path: Path) -> tuple[NoisePolicy, PretrainConfig, Card]:
    """A frozen policy, and the settings of its masks.

    Raises:
        CheckpointError: As for ``bundle.load``; or it holds no policy.
    """
    content = bundle.load(path, TASK)
    if content.card.method != POLICY:
        raise CheckpointError(f"'{path}' holds no policy. Give the folder '{POLICY}' of a run with policy=reinforce.")
    return _built_policy(content.card, content.tensors), policy_settings(content.card), content.card


def policy_settings(card: Card) -> PretrainConfig:
    """The settings that a policy's card carries.

    Raises:
        CheckpointError: They are not those of a policy.
    """
    keys = dict(card.architecture)
    try:
        return PretrainConfig.model_validate({"data": {"image_px": keys.pop("image_px"), "resize_px": 10**6}, **keys})
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"card.json: the architecture is not that of a policy ({error}).") from error


@torch.no_grad()
def policy_answer(noise: NoisePolicy, inputs: Mapping[str, Tensor]) -> Tensors:
    """Raw outputs for the golden input."""
    cells = noise.distributions(inputs["image"].to(noise.bases.log_alpha.device))
    return {"log_alpha": cells.log_alpha.float().cpu(), "log_beta": cells.log_beta.float().cpu()}


def _built_policy(card: Card, tensors: Tensors) -> NoisePolicy:
    noise = NoisePolicy(policy_settings(card))
    _load(noise, tensors)
    return noise.eval().requires_grad_(False)


def _load(module: nn.Module, tensors: Tensors) -> None:
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()
        raise CheckpointError(f"The weights do not fit the architecture: {first[:200]}") from error


def _image() -> Tensor:
    generator = torch.Generator().manual_seed(key("golden"))
    return torch.randn(1, 3, _GOLDEN_PX, _GOLDEN_PX, generator=generator)
