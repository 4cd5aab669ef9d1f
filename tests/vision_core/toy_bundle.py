"""A bundle of two numbers that scale their input."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from vision_core.bundles.bundle import Golden, save
from vision_core.bundles.card import Card, TrainedOn
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
    found = Card.model_validate_json((folder / "card.json").read_text())
    changed = found.model_copy(update={"hashes": {**found.hashes, name: sha256(folder / name)}})
    (folder / "card.json").write_text(changed.model_dump_json())
    return changed
