"""A real detector's bundle, small enough for tests, and ways to spoil it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.vision_core.toy_bundle import edit_card
from vision_core.bundles.card import Card, TrainedOn
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.bundles import save_detector
from vision_core.files import sha256

SETTINGS = DetectorSettings(
    backbone="lite0",
    neck="fpn",
    freeze_at=0,
    fpn_channels=8,
    head_channels=16,
    pool_size=7,
    anchor_sizes=((16,), (32,), (64,), (128,), (256,)),
    channel_order="rgb",
    shortest_edge_px=0,
)


def make_bundle(folder: Path, seed: int = 0) -> Path:
    """A bundle of an untrained detector of two classes."""
    torch.manual_seed(seed)
    card = Card(
        task="sfod",
        method="source",
        config={},
        architecture={},
        preprocessing={},
        classes=(),
        trained_on=TrainedOn(description="nothing", synthetic=True),
    )
    save_detector(folder, Detector(SETTINGS, ("Tree", "Car")), card)
    return folder


def change_card(folder: Path, *, sealed: bool = True, **changes: object) -> None:
    """Other values in ``card.json``, under a new seal unless the seal is to show them; the hashes stay."""
    edit_card(folder, lambda content: content.update(changes), sealed=sealed)


def change_tensors(folder: Path, changes: Mapping[str, Tensor], name: str = "weights.safetensors") -> None:
    """Other tensors in a file of the bundle, with the hash that fits them: a fault that hashes do not show."""
    save_file({**load_file(folder / name), **changes}, folder / name)
    trust(folder)


def trust(folder: Path) -> None:
    """Hashes of the files as they are."""
    names = ("weights.safetensors", "golden.safetensors")
    change_card(folder, hashes={name: sha256(folder / name) for name in names})
