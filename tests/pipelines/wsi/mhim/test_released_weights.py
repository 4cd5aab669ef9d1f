"""Files laid out as the released ones (specification, section 1.4)."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.wsi.mhim.released_weights import import_released, read_released
from pipelines.wsi.models.build import build_model
from vision_core.errors import CheckpointError

ATTENTION = "online_encoder.attention.attention"
BAG = "online_encoder.b_classifier"


def _abmil(*, gated: bool) -> dict[str, Tensor]:
    hidden = {f"{ATTENTION}_a.0.weight": (4, 8), f"{ATTENTION}_b.0.weight": (4, 8), f"{ATTENTION}_c.weight": (1, 4)}
    plain = {f"{ATTENTION}.0.weight": (4, 8), f"{ATTENTION}.2.weight": (1, 4)}
    return _random(_ENDS | (hidden if gated else plain))


def _dsmil() -> dict[str, Tensor]:
    instances = {"online_encoder.i_classifier.0.weight": (2, 8), "online_encoder.i_classifier.0.bias": (2,)}
    queries = {
        f"{BAG}.q.0.weight": (5, 8),
        f"{BAG}.q.0.bias": (5,),
        f"{BAG}.q.2.weight": (5, 5),
        f"{BAG}.q.2.bias": (5,),
    }
    values = {f"{BAG}.v.1.weight": (8, 8), f"{BAG}.v.1.bias": (8,)}
    return _random(_ENDS | instances | queries | values | {f"{BAG}.fcc.weight": (2, 2, 8), f"{BAG}.fcc.bias": (2,)})


_ENDS = {
    "patch_to_emb.0.weight": (8, 6),
    "patch_to_emb.0.bias": (8,),
    "predictor.weight": (2, 8),
    "predictor.bias": (2,),
}


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("gated", [False, True])
def test_import_released__abmil(gated: bool) -> None:
    state = _abmil(gated=gated)
    found = import_released(state)
    network = build_model(found.settings, found.feature_dim, found.num_classes).eval()
    network.load_state_dict(found.tensors)
    assert (found.settings.name, found.settings.abmil.gated, found.dropped) == ("abmil", gated, ())
    bag = torch.randn(7, 6)
    embedded = (bag @ state["patch_to_emb.0.weight"].T + state["patch_to_emb.0.bias"]).relu()
    first, last = ("_a.0", "_c") if gated else (".0", ".2")
    hidden = (embedded @ state[f"{ATTENTION}{first}.weight"].T).relu()
    if gated:
        hidden = hidden * (embedded @ state[f"{ATTENTION}_b.0.weight"].T).sigmoid()
    feature = (hidden @ state[f"{ATTENTION}{last}.weight"].T).softmax(dim=0).T @ embedded
    logits = (feature @ state["predictor.weight"].T + state["predictor.bias"])[0]
    torch.testing.assert_close(network(bag), logits)
    torch.testing.assert_close(network(bag).softmax(dim=0), logits.softmax(dim=0))


@pytest.mark.parametrize("part", ["model", "teacher"])
def test_read_released__dsmil_in_a_wrapper(part: str, tmp_path: Path) -> None:
    """The student where the file holds both."""
    states = {"model": _dsmil(), "teacher": _dsmil()}
    torch.save(states if part == "model" else {"teacher": states["teacher"]}, tmp_path / "a.pt")
    found = read_released(tmp_path / "a.pt")
    network = build_model(found.settings, found.feature_dim, found.num_classes)
    network.load_state_dict(found.tensors)
    assert found.settings.dsmil.query == 5
    assert found.dropped == ("predictor.weight", "predictor.bias")
    assert torch.equal(network.get_parameter("value.0.bias"), states[part][f"{BAG}.v.1.bias"])


def test_read_released__a_file_with_objects_is_refused(tmp_path: Path) -> None:
    torch.save({"model": _dsmil(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"asks for 'argparse\.Namespace'\. Give a released \.pt file"):
        read_released(tmp_path / "a.pt")


def test_import_released__what_has_no_place_is_named() -> None:
    found = import_released(_abmil(gated=False) | {"head.weight": torch.zeros(1)})
    assert found.dropped == ("head.weight",)


def test_import_released__another_network_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"first entry is 'layer1\.weight'"):
        import_released({"layer1.weight": torch.zeros(1)})


def test_import_released__missing_and_misshapen_tensors_are_all_named() -> None:
    state = _abmil(gated=False) | {"predictor.bias": torch.zeros(3)}
    del state["patch_to_emb.0.bias"]
    with pytest.raises(CheckpointError) as caught:
        import_released(state)
    assert len(caught.value.problems) == 2
    assert "'classifier.bias' has the shape (3,); expected (2,)" in caught.value.problems[0]
    assert "'embedding.linear.bias' has the shape None" in caught.value.problems[1]
