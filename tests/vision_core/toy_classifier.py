"""A small classifier's bundle with uneven weights and statistics, written in a moment."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vision_core.backbones.bundles import architecture
from vision_core.backbones.networks import build_backbone
from vision_core.bundles import bundle
from vision_core.bundles.bundle import Golden, Tensors
from vision_core.bundles.card import Card, TrainedOn

PREPROCESSING: dict[str, Any] = {"values": "0 to 1", "mean": [0.3, 0.32, 0.35], "std": [0.31, 0.29, 0.33]}


def uneven(name: str, num_classes: int = 3) -> nn.Module:
    """A backbone none of whose tensors is at its starting value, in evaluation mode."""
    torch.manual_seed(3)
    network = build_backbone(name, num_classes).eval()
    with torch.no_grad():
        for parameter in (each for each in network.parameters() if each.ndim == 1):
            parameter.add_(torch.rand_like(parameter).mul_(0.1))
        for place, buffer in network.named_buffers():
            if place.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    return network


def write_classifier(folder: Path, name: str, task: str = "pretrain", **changes: Any) -> nn.Module:  # noqa: ANN401
    """Write a bundle as ``pipelines.pretrain`` does; ``changes`` replace fields of its card. Returns the classifier."""
    network = uneven(name)

    def answer(tensors: Tensors, inputs: Tensors) -> Tensors:
        network.load_state_dict(tensors)
        return {"logits": network(inputs["image"])}

    described = Card(
        task=task,
        method="toy",
        config={},
        architecture=architecture(name, 3),
        preprocessing=PREPROCESSING,
        classes=("a", "b", "c"),
        trained_on=TrainedOn(description="nothing", synthetic=True),
    ).model_copy(update=changes)
    with torch.no_grad():
        bundle.save(
            folder, network.state_dict(), described, Golden(inputs={"image": torch.rand(1, 3, 32, 32)}, answer=answer)
        )
    return network
