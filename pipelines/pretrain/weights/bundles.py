"""Bundles of classifiers and policies, each with a golden pair of an image's bytes and raw outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.preprocessing import centre_view, described, normalise
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.noise_mask.policy import NoisePolicy
from vision_core.backbones.bundles import architecture, is_classifier, read_preprocessing
from vision_core.backbones.networks import build_backbone
from vision_core.backbones.settings import Preprocessing
from vision_core.bundles import bundle
from vision_core.bundles.bundle import Golden, Tensors
from vision_core.bundles.card import UNSEALED_FORMAT, Card, refuse_unapplied
from vision_core.errors import CheckpointError
from vision_core.randomness import key

TASK = "pretrain"
IMPORTED = "imported"  # method on the card of another program's weights
POLICY = "policy"  # folder beside the classifier's bundle, and method on its card
GOLDEN_PIXELS = "pixels"
_GOLDEN_SIZE = (72, 96)
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
    name, count, rules = str(card.architecture["backbone"]), len(card.classes), read_preprocessing(folder, card)

    def answer(tensors: Tensors, inputs: Tensors) -> Tensors:
        return classifier_outputs(build_classifier(name, count, tensors), inputs, rules)

    return bundle.save(folder, network.state_dict(), card, Golden(inputs=_golden_inputs(), answer=answer))


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
    refuse_unapplied(card, "calibration", "scope")
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
    """Tell whether the classifier was trained on images that may have several classes."""
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


def prepare(pixels: NDArray[np.uint8], rules: Preprocessing, device: torch.device | str = "cpu") -> Tensor:
    """Resize, crop and normalise an RGB image ``(H, W, 3)`` by the rules of a card: ``(1, 3, side, side)`` float32."""
    view = _batch(centre_view(pixels, rules.resize_px, rules.input_px)).to(device)
    ordered = view.flip(1) if rules.channel_order == "bgr" else view
    values = ordered.float() / 255 if rules.values == "0 to 1" else ordered.float()
    mean, std = (values.new_tensor(each).view(3, 1, 1) for each in (rules.mean, rules.std))
    return (values - mean) / std


@torch.no_grad()
def classifier_outputs(network: nn.Module, inputs: Mapping[str, Tensor], rules: Preprocessing) -> Tensors:
    """Compute a classifier's raw outputs for the golden input: ``pixels``; in format 1 a normalised ``image``."""
    device = next(network.parameters()).device
    pixels = inputs.get(GOLDEN_PIXELS)
    image = inputs["image"].to(device) if pixels is None else prepare(pixels.cpu().numpy(), rules, device)
    return {"logits": network(image).float().cpu()}


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
        return policy_outputs(_build_policy(filled, tensors), inputs, config.data.image_px)

    return bundle.save(folder, policy.state_dict(), filled, Golden(inputs=_golden_inputs(), answer=answer))


def load_policy(path: Path) -> tuple[NoisePolicy, PretrainConfig, Card]:
    """Load a policy from a bundle, frozen, with the settings of its masks and its card.

    Raises:
        CheckpointError: As for ``bundle.load``; or the bundle holds no policy.
    """
    content = bundle.load(path, TASK)
    if content.card.method != POLICY:
        raise CheckpointError(f"'{path}' holds no policy. Give the folder '{POLICY}' of a run with policy=reinforce.")
    if content.card.format > UNSEALED_FORMAT:
        _check_own_preprocessing(path, content.card)
    return _build_policy(content.card, content.tensors), _policy_settings(content.card), content.card


def _check_own_preprocessing(path: Path, card: Card) -> None:
    """Refuse a policy's card with other preprocessing than a policy has.

    Raises:
        CheckpointError: Mean, deviation or channel order differ, or the size of the images.
    """
    own = {**described(PretrainConfig().data), "image_px": card.architecture.get("image_px")}
    for name in ("mean", "std", "channel_order", "image_px"):
        if card.preprocessing.get(name) != own[name]:
            raise CheckpointError(
                f"'{path}': card.json, preprocessing.{name} is '{card.preprocessing.get(name)}', a policy of this "
                f"version has '{own[name]}'. Fetch the bundle again."
            )


@torch.no_grad()
def policy_outputs(policy: NoisePolicy, inputs: Mapping[str, Tensor], image_px: int) -> Tensors:
    """Compute a policy's raw outputs for the golden input, seen at ``image_px``; as for ``classifier_outputs``."""
    pixels = inputs.get(GOLDEN_PIXELS)
    if pixels is None:
        image = inputs["image"]
    else:
        image = normalise(_batch(centre_view(pixels.cpu().numpy(), image_px, image_px)))
    cells = policy.distributions(image.to(policy.bases.log_alpha.device))
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


def _golden_inputs() -> Tensors:
    generator = torch.Generator().manual_seed(key("golden"))
    height, width = _GOLDEN_SIZE
    noise = torch.randint(0, 64, (height, width, 3), generator=generator)
    ramp = torch.linspace(0, 150, width).long()[None, :, None] + torch.tensor([0, 12, 40])  # each channel has its own
    return {GOLDEN_PIXELS: (noise + ramp).clamp(max=255).to(torch.uint8)}


def _batch(view: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))[None]
