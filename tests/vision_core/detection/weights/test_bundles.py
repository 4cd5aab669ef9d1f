from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.bad_inputs.bundles import SETTINGS, make_bundle
from vision_core.bundles import bundle
from vision_core.bundles.card import Card, TrainedOn
from vision_core.detection.model.detector import Detector
from vision_core.detection.weights.bundles import answer, build_detector, load_detector, preprocessing, save_detector
from vision_core.errors import CheckpointError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model")


def test_save_detector__card_is_filled_in(folder: Path) -> None:
    card = bundle.read_card(folder)
    assert card.classes == ("Tree", "Car")
    assert card.architecture == SETTINGS.model_dump(mode="json")
    assert card.preprocessing["channel_order"] == "rgb"


def test_load_detector__same_weights_frozen_and_in_evaluation_mode(folder: Path) -> None:
    detector, card = load_detector(folder, "sfod")
    stored = load_file(folder / "weights.safetensors")
    assert detector.classes == card.classes
    assert all(torch.equal(tensor, stored[name]) for name, tensor in detector.state_dict().items())
    assert not detector.training
    assert not any(parameter.requires_grad for parameter in detector.parameters())


def test_golden__answers_of_the_loaded_detector_are_the_stored_ones(folder: Path) -> None:
    content = bundle.load(folder)
    assert bundle.check_golden(content, lambda inputs: answer(build_detector(content), inputs)) == 0


def test_golden__raw_outputs_only(folder: Path) -> None:
    outputs = bundle.load(folder).outputs()
    levels = {f"features.p{level}" for level in range(2, 7)} | {f"objectness.{level}" for level in range(5)}
    assert set(outputs) == levels | {"logits", "deltas"}
    assert outputs["logits"].shape == (4, 3)
    assert outputs["deltas"].shape == (4, 8)


def test_golden__input_is_the_same_in_every_bundle(folder: Path, tmp_path: Path) -> None:
    other = bundle.load(make_bundle(tmp_path / "model", seed=1)).inputs()
    assert all(torch.equal(tensor, other[name]) for name, tensor in bundle.load(folder).inputs().items())


def test_golden__a_changed_weight_changes_the_answer(folder: Path) -> None:
    content = bundle.load(folder)
    detector = build_detector(content)
    with torch.no_grad():
        next(iter(detector.roi_heads.box_predictor.parameters())).mul_(1.05)
    with pytest.raises(CheckpointError, match="another output"):
        bundle.check_golden(content, lambda inputs: answer(detector, inputs))


def test_save_detector__half_storage_halves_the_file(folder: Path, tmp_path: Path) -> None:
    detector, card = load_detector(folder)
    plain = Card(
        task="sfod",
        method="source",
        config={},
        architecture={},
        preprocessing={},
        classes=(),
        trained_on=TrainedOn(description="nothing", synthetic=True),
        storage="fp16",
    )
    save_detector(tmp_path / "half", detector, plain)
    sizes = [(path / "weights.safetensors").stat().st_size for path in (tmp_path / "half", folder)]
    assert sizes[0] < 0.52 * sizes[1]
    assert build_detector(bundle.load(tmp_path / "half")).classes == card.classes


def test_save_detector__the_detector_itself_is_left_as_it_was(tmp_path: Path) -> None:
    detector = Detector(SETTINGS, ("Tree",)).train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    card = bundle.read_card(make_bundle(tmp_path / "a"))
    save_detector(tmp_path / "b", detector, card.model_copy(update={"storage": "fp16"}))
    assert detector.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


def test_preprocessing__says_size_order_and_range() -> None:
    assert preprocessing(SETTINGS)["values"] == "0 to 255"
    assert "1333" in str(preprocessing(SETTINGS)["resize"])
