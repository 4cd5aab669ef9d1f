"""Files laid out as the released ones (specification, section 1.4)."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.wsi.__main__ import main
from pipelines.wsi.mhim.released_weights import import_released, read_released
from pipelines.wsi.models.build import build_model
from tests.pipelines.wsi.tiny import make_foreign
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
@pytest.mark.parametrize("is_flat", [False, True], ids=["wrapped", "prefixed"])
def test_read_released__dsmil_of_student_and_teacher(part: str, is_flat: bool, tmp_path: Path) -> None:
    """The average, which is told, unless the student is asked for."""
    states = {"model": _dsmil(), "teacher": _dsmil()}
    flat = {f"{name}.{key}": each for name, state in states.items() for key, each in state.items()}
    torch.save(flat if is_flat else states, tmp_path / "a.pt")
    found = read_released(tmp_path / "a.pt", key="model" if part == "model" else None)
    assert "source.weights_key=NAME takes another" in found.lines()[0]
    assert ("(the average)" in found.lines()[0]) == (part == "teacher")
    network = build_model(found.settings, found.feature_dim, found.num_classes)
    network.load_state_dict(found.tensors)
    assert found.settings.dsmil.query == 5
    assert found.dropped == ("predictor.weight", "predictor.bias")
    assert torch.equal(network.get_parameter("value.0.bias"), states[part][f"{BAG}.v.1.bias"])


def test_read_released__a_file_with_objects_is_refused(tmp_path: Path) -> None:
    torch.save({"model": _dsmil(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"asks for 'argparse\.Namespace'\. If you know where"):
        read_released(tmp_path / "a.pt")
    assert read_released(tmp_path / "a.pt", trust=True).settings.name == "dsmil"


@pytest.mark.parametrize("prefix", ["module.", "teacher.module."])
def test_read_released__a_prefix_is_taken_off(prefix: str, tmp_path: Path) -> None:
    torch.save({f"{prefix}{name}": each for name, each in _abmil(gated=False).items()}, tmp_path / "a.pt")
    assert read_released(tmp_path / "a.pt").dropped == ()


def test_read_released__the_true_cause_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    torch.save(_abmil(gated=False), whole := tmp_path / "whole.pt")
    cases = [
        (b"<!doctype html><p>Sign in", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 3100000\n", "is a Git LFS pointer"),
        (whole.read_bytes()[:1000], "breaks off"),
    ]
    for content, told in cases:
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=told):
            read_released(tmp_path / "a.pt")
    torch.save({name: (99 * each).to(torch.int8) for name, each in _abmil(gated=True).items()}, whole)
    with pytest.raises(CheckpointError, match="hold 'int8' and no scales: quantised weights"):
        read_released(whole)


def test_read_released__a_transmil_is_named(tmp_path: Path) -> None:
    torch.save(
        {"online_encoder.layer1.norm.weight": torch.ones(3), "patch_to_emb.0.weight": torch.ones(2, 2)},
        tmp_path / "a.pt",
    )
    with pytest.raises(CheckpointError, match="holds a TransMIL; AB-MIL and DSMIL are read"):
        read_released(tmp_path / "a.pt")


def test_import_released__a_part_of_the_network_that_is_not_built_is_refused() -> None:
    for gated, more in ((False, "online_encoder.attention.attention_a.0.weight"), (True, "predictor.2.weight")):
        with pytest.raises(CheckpointError, match=f"first '{more}': without them its answers would differ"):
            import_released(_abmil(gated=gated) | {more: torch.zeros(1)})


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


def test_import_weights__classes_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, _ = make_foreign(tmp_path)
    assert main(["import-weights", str(file), "--out", str(tmp_path / "bundle")]) == 2
    assert "tells 2 classes apart, data.classes lists 0" in capsys.readouterr().err


def test_import_weights__code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row H1 of the bad inputs."""
    proof = tmp_path / "proof"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(proof), "w"))  # type: ignore[return-value]

    torch.save({"patch_to_emb.0.weight": Evil()}, tmp_path / "evil.pt")
    for trust in ([], ["--i-trust-this-file"]):
        words = ["import-weights", str(tmp_path / "evil.pt"), "--out", str(tmp_path / "b"), "data.classes=[a, b]"]
        assert main([*words, *trust]) == 2
    assert "error[CHECKPOINT]" in capsys.readouterr().err
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"slide,label\na,b\n"])
def test_import_weights__what_is_no_file_of_weights(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    words = ["import-weights", str(tmp_path / "weights.pt"), "--out", str(tmp_path / "b"), "data.classes=[a,b]"]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error[CHECKPOINT]")
    assert main([*words[:-1], "data.classes=[a,a]"]) == 2
    assert "should name each class once" in capsys.readouterr().err
