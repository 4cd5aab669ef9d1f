"""A bundle of two numbers that scale their input."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from vision_core.bundles.bundle import Golden, save
from vision_core.bundles.card import SEAL, Card, TrainedOn, seal
from vision_core.files import sha256

FILES = ("weights.safetensors", "golden.safetensors", "card.json")


def weights() -> dict[str, Tensor]:
    return {"scale": torch.tensor([0.1, 2.0]), "count": torch.tensor(3)}


def double(tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"y": tensors["scale"] * inputs["x"]}


def card(storage: Literal["fp16", "fp32"] = "fp32") -> Card:
    return Card(
        task="toy",
        method="plain",
        config={},
        architecture={},
        preprocessing={},
        classes=("one",),
        trained_on=TrainedOn(description="numbers", synthetic=True),
        storage=storage,
    )


def save_toy(
    folder: Path, storage: Literal["fp16", "fp32"] = "fp32", golden: Mapping[str, Tensor] | None = None
) -> Card:
    """Write the bundle; ``golden`` takes the place of its pair."""
    saved = save(folder, weights(), card(storage), Golden(inputs={"x": torch.tensor([3.0, 5.0])}, answer=double))
    if golden is None:
        return saved
    return replace_tensors(folder, "golden.safetensors", golden)


def replace_tensors(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> Card:
    """Put other tensors in the place of those in ``name``, with the right hash in the card."""
    save_file(dict(tensors), folder / name)
    edit_card(folder, lambda content: content["hashes"].update({name: sha256(folder / name)}))
    return Card.model_validate_json((folder / "card.json").read_text())


def edit_card(folder: Path, change: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> None:
    """Change the content of a card; ``sealed``: with the seal that fits, so that a fault is met behind it."""
    path = folder / "card.json"
    content = json.loads(path.read_text())
    change(content)
    if sealed and content.get(SEAL):
        content[SEAL] = seal(content)
    path.write_text(json.dumps(content))
