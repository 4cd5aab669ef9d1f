"""What a run starts from, and what it refuses to start from."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.initial_weights import is_bundle, load_source_detector, new_detector
from tests.pipelines.sfod.tiny import CLASSES, DETECTOR, source_bundle
from tests.vision_core.toy_bundle import edit_card
from tests.vision_core.toy_classifier import write_classifier
from vision_core.bundles.bundle import load
from vision_core.config.loading import replace
from vision_core.detection.weights.bundles import load_detector
from vision_core.errors import CheckpointError, ConfigError
from vision_core.pipeline import weights_hash


def _config(**changes: object) -> SfodConfig:
    return replace(SfodConfig(), {"source.weights": source_bundle(), **changes})


def test_load_source_detector__brings_weights_classes_and_trains() -> None:
    start = load_source_detector(_config())
    stored, _ = load_detector(source_bundle())
    assert all(torch.equal(tensor, stored.state_dict()[name]) for name, tensor in start.module.state_dict().items())
    assert start.module.classes == CLASSES
    assert any(parameter.requires_grad for parameter in start.module.parameters())
    assert start.path == source_bundle()
    assert "sfod/source/" in start.notes[0]


def test_load_source_detector__a_section_for_the_architecture_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"comes with the bundle in source\.weights; remove this section"):
        load_source_detector(_config(detector=DETECTOR))


def test_load_source_detector__card_and_head_of_different_lengths(tmp_path: Path) -> None:
    broken = Path(shutil.copytree(source_bundle(), tmp_path / "model"))
    edit_card(broken, lambda card: card.update(classes=["disc"]))
    with pytest.raises(CheckpointError, match=r"lists 1 classes, the head .* has 2"):
        load_source_detector(_config(**{"source.weights": broken}))


def test_is_bundle__of_a_zip_however_its_name_is_written(tmp_path: Path) -> None:
    assert is_bundle(tmp_path)
    assert is_bundle(Path("model.ZIP"))
    assert not is_bundle(Path("model.pth"))


def test_weights_hash__is_that_of_the_card() -> None:
    card = json.loads((source_bundle() / "card.json").read_text())
    assert weights_hash(source_bundle()) == card["hashes"]["weights.safetensors"]


def test_new_detector__of_a_bundle_goes_on_from_its_weights() -> None:
    detector, notes = new_detector(_config(method="source"), CLASSES)
    stored, _ = load_detector(source_bundle())
    name = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(detector.state_dict()[name], stored.state_dict()[name])
    assert "sfod/source/" in notes[0]


def test_new_detector__lite0_starts_from_imagenet_and_says_so() -> None:
    detector, notes = new_detector(_config(**{"source.weights": None, "detector": DETECTOR}), ("a", "b", "c"))
    assert detector.classes == ("a", "b", "c")
    assert "ImageNet weights of efficientnet-lite0" in notes[0]


def test_new_detector__other_backbones_start_from_random_numbers_and_say_so() -> None:
    settings = {**DETECTOR, "backbone": "r18"}
    _, notes = new_detector(_config(**{"source.weights": None, "detector": settings}), CLASSES)
    assert "r18 from random numbers" in notes[0]


def test_new_detector__random_numbers_follow_from_the_seed_alone() -> None:
    def head(seed: int, state: int) -> torch.Tensor:
        torch.manual_seed(state)
        changes = {"source.weights": None, "detector": DETECTOR, "train.seed": seed}
        detector, _ = new_detector(_config(**changes), CLASSES)
        weight: torch.Tensor = detector.state_dict()["roi_heads.box_head.fc1.weight"]
        return weight

    assert torch.equal(head(seed=0, state=1), head(seed=0, state=2))
    assert not torch.equal(head(seed=0, state=1), head(seed=1, state=1))


@pytest.mark.parametrize(("name", "expected"), [("model", True), ("model.zip", True), ("model_final.pth", False)])
def test_is_bundle__by_its_look(name: str, expected: bool, tmp_path: Path) -> None:
    if name == "model":
        (tmp_path / name).mkdir()
    assert is_bundle(tmp_path / name) is expected


def test_new_detector__of_a_classifiers_bundle_takes_its_backbone_and_input(tmp_path: Path) -> None:
    write_classifier(tmp_path / "model", "lite0")
    settings = {**DETECTOR, "backbone": "r18"}
    detector, notes = new_detector(
        _config(method="source", detector=settings, **{"source.weights": tmp_path / "model"}), CLASSES
    )
    stored = load(tmp_path / "model").tensors
    assert detector.settings.backbone == "lite0"
    assert detector.settings.fpn_channels == DETECTOR["fpn_channels"]
    assert detector.settings.pixel_mean == pytest.approx((76.5, 81.6, 89.25))
    found = detector.state_dict()["backbone.bottom_up.network.blocks.6.0.conv_pw.weight"]
    assert torch.equal(found, stored["blocks.6.0.conv_pw.weight"])
    assert "lite0 of pretrain/toy/" in notes[0]
    assert "detector.backbone=lite0" in notes[1]


def test_new_detector__heads_beside_a_classifiers_backbone_follow_from_the_seed(tmp_path: Path) -> None:
    write_classifier(tmp_path / "model", "lite0")
    heads: list[torch.Tensor] = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(heads))
        changes = {"source.weights": tmp_path / "model", "detector": DETECTOR, "train.seed": seed}
        detector, _ = new_detector(_config(method="source", **changes), CLASSES)
        heads.append(detector.state_dict()["roi_heads.box_head.fc1.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_load_source_detector__a_classifier_is_no_source_model(tmp_path: Path) -> None:
    write_classifier(tmp_path / "model", "lite0")
    with pytest.raises(CheckpointError, match=r"adaptation starts from a detector\. Train one .* method=source"):
        load_source_detector(_config(**{"source.weights": tmp_path / "model", "data.classes": CLASSES}))
