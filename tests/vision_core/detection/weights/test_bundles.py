import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.bad_inputs.bundles import SETTINGS, make_bundle
from tests.vision_core.toy_bundle import edit_card
from vision_core.bundles import bundle
from vision_core.bundles.card import Card, TrainedOn
from vision_core.detection.model.detector import Detector
from vision_core.detection.weights.bundles import answer, build_detector, load_detector, preprocessing, save_detector
from vision_core.errors import CheckpointError


def card() -> Card:
    return Card(
        task="sfod",
        method="source",
        config={},
        architecture={},
        preprocessing={},
        classes=(),
        trained_on=TrainedOn(description="nothing", synthetic=True),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model")


def test_save_detector__card_is_filled_in(folder: Path) -> None:
    found = bundle.read_card(folder)
    assert found.classes == ("Tree", "Car")
    assert found.architecture == SETTINGS.model_dump(mode="json")
    assert found.preprocessing["channel_order"] == "rgb"


def test_load_detector__same_weights_frozen_and_in_evaluation_mode(folder: Path) -> None:
    detector, described = load_detector(folder, "sfod")
    stored = load_file(folder / "weights.safetensors")
    assert detector.classes == described.classes
    assert all(torch.equal(tensor, stored[name]) for name, tensor in detector.state_dict().items())
    assert not detector.training
    assert not any(parameter.requires_grad for parameter in detector.parameters())


def test_golden__answers_of_the_loaded_detector_are_the_stored_ones(folder: Path) -> None:
    content = bundle.load(folder)
    assert bundle.check_golden(content, lambda inputs: answer(build_detector(content), inputs)) == 0


def test_golden__raw_outputs_only(folder: Path) -> None:
    outputs = bundle.load(folder).outputs()
    levels = {f"features.p{level}" for level in range(2, 7)} | {f"objectness.{level}" for level in range(5)}
    assert set(outputs) == levels | {"logits", "deltas", "sizes"}
    assert outputs["logits"].shape == (4, 3)
    assert outputs["deltas"].shape == (4, 8)


def test_golden__input_is_the_same_in_every_bundle(folder: Path, tmp_path: Path) -> None:
    other = bundle.load(make_bundle(tmp_path / "model", seed=1)).inputs()
    assert all(torch.equal(tensor, other[name]) for name, tensor in bundle.load(folder).inputs().items())


EDITS: dict[str, dict[str, Any]] = {
    "mean": {"pixel_mean": (123.0, 117.0, 104.0)},
    "std": {"pixel_std": (57.0, 57.0, 57.0)},
    "order": {"channel_order": "bgr"},
    "shortest edge": {"shortest_edge_px": 72},
    "longest edge": {"longest_edge_px": 1000},
}


@pytest.mark.parametrize("changes", EDITS.values(), ids=EDITS)
def test_golden__begins_before_the_preprocessing(changes: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    """Even a card that was sealed anew after an edit answers otherwise."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    edited = SETTINGS.model_copy(update=changes)
    edit_card(copy, lambda content: content.update(architecture=edited.model_dump(mode="json")))
    with pytest.raises(CheckpointError, match=r"card\.json: preprocessing\.\w+ is '.*', the architecture asks for"):
        load_detector(copy)
    edit_card(copy, lambda content: content.update(preprocessing=json.loads(json.dumps(preprocessing(edited)))))
    content = bundle.load(copy)
    with pytest.raises(CheckpointError, match="another output"):
        bundle.check_golden(content, lambda inputs: answer(build_detector(content), inputs))


def test_golden__of_a_large_resize_stays_small(tmp_path: Path) -> None:
    detector = Detector(SETTINGS.model_copy(update={"shortest_edge_px": 320}), ("Tree",))
    save_detector(tmp_path / "model", detector, card())
    content = bundle.load(tmp_path / "model")
    assert bundle.check_golden(content, lambda inputs: answer(build_detector(content), inputs)) == 0
    assert (tmp_path / "model" / "golden.safetensors").stat().st_size < 200_000


def test_answer__format_1_begins_at_an_image_as_the_network_takes_it(folder: Path) -> None:
    detector, _ = load_detector(folder)
    inputs = bundle.load(folder).inputs()
    image = inputs["pixels"].permute(2, 0, 1)
    before = answer(detector, {"image": image, "boxes": inputs["boxes"]})
    now = answer(detector, inputs)
    assert now.keys() - before.keys() == {"sizes"}  # this detector does not resize: the same numbers
    same = [name for name, tensor in before.items() if tensor.shape == now[name].shape]
    assert same
    assert all(torch.equal(before[name], now[name]) for name in same)


def test_golden__a_changed_weight_changes_the_answer(folder: Path) -> None:
    content = bundle.load(folder)
    detector = build_detector(content)
    with torch.no_grad():
        next(iter(detector.roi_heads.box_predictor.parameters())).mul_(1.05)
    with pytest.raises(CheckpointError, match="another output"):
        bundle.check_golden(content, lambda inputs: answer(detector, inputs))


def test_save_detector__half_storage_halves_the_file(folder: Path, tmp_path: Path) -> None:
    detector, described = load_detector(folder)
    save_detector(tmp_path / "half", detector, card().model_copy(update={"storage": "fp16"}))
    sizes = [(path / "weights.safetensors").stat().st_size for path in (tmp_path / "half", folder)]
    assert sizes[0] < 0.52 * sizes[1]
    assert build_detector(bundle.load(tmp_path / "half")).classes == described.classes


def test_save_detector__the_detector_itself_is_left_as_it_was(tmp_path: Path) -> None:
    detector = Detector(SETTINGS, ("Tree",)).train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    save_detector(tmp_path / "b", detector, card().model_copy(update={"storage": "fp16"}))
    assert detector.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


def test_preprocessing__says_size_order_and_range() -> None:
    assert preprocessing(SETTINGS)["values"] == "0 to 255"
    assert "1333" in str(preprocessing(SETTINGS)["resize"])
