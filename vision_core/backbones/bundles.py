"""Backbones from bundles of classifiers, with the preprocessing of their images, as a start for other tasks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from vision_core.backbones.networks import BACKBONES, BackboneSpec, backbone_spec, build_backbone
from vision_core.backbones.settings import Preprocessing
from vision_core.bundles import bundle
from vision_core.bundles.bundle import refuse_other_task
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError

_TASK = "pretrain"  # the pipeline that makes classifiers


@dataclass(frozen=True, kw_only=True)
class TrainedBackbone:
    """Backbone of a classifier's bundle.

    Attributes:
        spec: Description of the backbone.
        tensors: Weights without the classifier, under the names of ``build_backbone(name, 0)``.
        preprocessing: Preprocessing of its images.
        card: Card of the bundle.
    """

    spec: BackboneSpec
    tensors: Mapping[str, Tensor]
    preprocessing: Preprocessing
    card: Card

    def build(self) -> nn.Module:
        """Build the network with these weights: normalised images to pooled features ``(B, dim)``."""
        network = build_backbone(self.spec.name, 0)
        network.load_state_dict(dict(self.tensors), strict=True)
        return network


def architecture(name: str, num_classes: int) -> dict[str, Any]:
    """Describe a classifier's architecture for its card."""
    spec = backbone_spec(name)
    return {
        "backbone": spec.name,
        "num_classes": num_classes,
        "feature_dim": spec.dim,
        "strides": spec.strides,
        "stride_in_1x1": spec.stride_in_1x1,
    }


def is_classifier(card: Card) -> bool:
    """Tell whether a card describes a backbone with a classifier, not a detector or a MIL model."""
    return card.architecture.get("backbone") in BACKBONES and "num_classes" in card.architecture


def load_backbone(path: Path) -> TrainedBackbone:
    """Read the backbone from a classifier's bundle.

    Raises:
        CheckpointError: As for ``bundle.load``; not a classifier's bundle, or tensors of another architecture.
    """
    content = bundle.load(path)
    card = content.card
    if not is_classifier(card):
        raise CheckpointError(
            f"Bundle '{path}' of pipeline '{card.task}' holds no backbone with a classifier. "
            "Give a bundle made by pipelines.pretrain train."
        )
    refuse_other_task(path, card, _TASK)
    spec = backbone_spec(card.architecture["backbone"])
    tensors = {name: each for name, each in content.tensors.items() if not name.startswith(f"{spec.classifier}.")}
    _check_fit(path, spec, tensors)
    return TrainedBackbone(spec=spec, tensors=tensors, preprocessing=read_preprocessing(path, card), card=card)


def read_preprocessing(path: Path, card: Card) -> Preprocessing:
    """Read the preprocessing of images from a card.

    Args:
        path: Its bundle, for messages.
        card: The card.

    Raises:
        CheckpointError: Mean or standard deviation are missing or impossible.
    """
    try:
        return Preprocessing.model_validate(card.preprocessing)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("preprocessing", *first["loc"]))
        raise CheckpointError(f"'{path}': card.json, {place}: {first['msg']}. Make the bundle again.") from error


def _check_fit(path: Path, spec: BackboneSpec, tensors: Mapping[str, Tensor]) -> None:
    with torch.device("meta"):
        own = build_backbone(spec.name, 0).state_dict()
    wrong = sorted(own.keys() ^ tensors.keys())
    wrong += [name for name, tensor in tensors.items() if name in own and own[name].shape != tensor.shape]
    if wrong:
        raise CheckpointError(
            f"'{path}': {len(wrong)} tensors are not those of a {spec.name}, the first '{wrong[0]}'. "
            "The bundle is inconsistent; make it again."
        )
