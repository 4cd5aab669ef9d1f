import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.vision_core.toy_bundle import FILES, card, double, save_toy, weights
from vision_core.bundles.bundle import Golden, check_golden, deviation, load, read_card, save
from vision_core.errors import CheckpointError


def test_save__three_files_and_hashes_in_the_card(tmp_path: Path) -> None:
    saved = save_toy(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == set(FILES)
    assert set(saved.hashes) == {"weights.safetensors", "golden.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert saved.identity() == f"toy/plain/{saved.hashes['weights.safetensors'][:12]}"


def test_load__gives_back_what_was_saved(tmp_path: Path) -> None:
    saved = save_toy(tmp_path / "model")
    found = load(tmp_path / "model", "toy")
    assert found.card == saved == read_card(tmp_path / "model")
    assert found.tensors.keys() == weights().keys()
    assert all(torch.equal(tensor, weights()[name]) for name, tensor in found.tensors.items())


def test_load__zip_of_the_folder_or_of_its_files_is_the_same(tmp_path: Path) -> None:
    save_toy(tmp_path / "model")
    for prefix in ("", "model/"):
        with zipfile.ZipFile(tmp_path / "model.ZIP", "w") as content:
            for name in FILES:
                content.write(tmp_path / "model" / name, prefix + name)
        assert load(tmp_path / "model.ZIP").card == load(tmp_path / "model").card


def test_save__half_precision_is_for_storage_and_golden_is_made_after_the_cast(tmp_path: Path) -> None:
    save_toy(tmp_path / "model", storage="fp16")
    stored = load_file(tmp_path / "model" / "weights.safetensors")
    found = load(tmp_path / "model")
    assert stored["scale"].dtype == torch.float16
    assert stored["count"].dtype == found.tensors["count"].dtype == torch.int64
    assert found.tensors["scale"].dtype == torch.float32
    assert torch.equal(found.outputs()["y"], found.inputs()["x"] * weights()["scale"].half().float())
    assert check_golden(found, lambda inputs: double(found.tensors, inputs)) == 0


def test_save__same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    assert save_toy(tmp_path / "a").hashes == save_toy(tmp_path / "b").hashes


def test_save__an_older_bundle_is_replaced(tmp_path: Path) -> None:
    save_toy(tmp_path / "model")
    save_toy(tmp_path / "model", storage="fp16")
    assert load(tmp_path / "model").card.storage == "fp16"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["thesis.tex", ".git", "weights.pth"])
def test_save__folder_with_other_content_is_not_replaced(tmp_path: Path, name: str) -> None:
    save_toy(tmp_path / "model")
    (tmp_path / "model" / name).touch()
    with pytest.raises(CheckpointError, match=f"holds '{name}' and is no bundle: nothing was replaced"):
        save_toy(tmp_path / "model")
    assert (tmp_path / "model" / name).exists()


def test_save__file_in_the_place_of_the_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("thesis")
    with pytest.raises(CheckpointError, match="nothing was replaced"):
        save_toy(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "thesis"


def test_save__failure_leaves_the_older_bundle(tmp_path: Path) -> None:
    def fail(*_: object) -> dict[str, Tensor]:
        raise RuntimeError("no answer")

    saved = save_toy(tmp_path / "model")
    with pytest.raises(RuntimeError, match="no answer"):
        save(tmp_path / "model", weights(), card(), Golden(inputs={"x": torch.ones(1)}, answer=fail))
    assert load(tmp_path / "model").card == saved
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e6])
def test_save__weights_that_are_not_finite_as_stored_are_refused(tmp_path: Path, number: float) -> None:
    bad = {**weights(), "scale": torch.tensor([1.0, number])}
    with pytest.raises(CheckpointError, match="NaN or infinity in 1 tensors, first 'scale'"):
        save(tmp_path / "model", bad, card(storage="fp16"), Golden(inputs={"x": torch.ones(2)}, answer=double))
    assert list(tmp_path.iterdir()) == []


# As in test_checkpoint.py: the limit on file size in the place of a full disk.
FILL = """
import resource, sys
from pathlib import Path
from tests.vision_core.toy_bundle import save_toy
from vision_core.errors import EnvironmentFault
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
try:
    save_toy(Path(sys.argv[1]), storage="fp16")
except EnvironmentFault as error:
    sys.exit(str(error))
"""


def test_save__full_disk_leaves_the_older_bundle(tmp_path: Path) -> None:
    saved = save_toy(tmp_path / "model")
    code = [sys.executable, "-c", FILL, str(tmp_path / "model")]
    found = subprocess.run(code, capture_output=True, text=True, check=False)
    assert "file too large, after 50 bytes" in found.stderr
    assert load(tmp_path / "model").card == saved
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_load__bundle_of_another_pipeline_is_refused(tmp_path: Path) -> None:
    save_toy(tmp_path / "model")
    with pytest.raises(
        CheckpointError, match=r"is of pipeline 'toy', not 'sfod'\. Give a bundle made by pipelines\.sfod"
    ):
        load(tmp_path / "model", "sfod")


def spoil(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    path = folder / "card.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.update(format=2), "has format 2, this version reads 1. Update domainsight"),
        (lambda content: content.pop("format"), "has format None"),
        (lambda content: content.pop("task"), "task: Field required"),
        (lambda content: content.update(surprise=1), "surprise: Extra inputs"),
        (lambda content: content.update(classes="a"), "classes: "),
        (lambda content: content.update(hashes={}), r"lists hashes of \[\]"),
        (lambda content: content["hashes"].update({"../../etc/weights.safetensors": "0"}), "lists hashes of"),
        (lambda content: content["hashes"].update({"weights.safetensors": "0" * 64}), "the card says 000000000000"),
    ],
)
def test_load__card_is_checked(tmp_path: Path, change: Callable[[dict[str, object]], object], told: str) -> None:
    save_toy(tmp_path / "model")
    spoil(tmp_path / "model", change)
    with pytest.raises(CheckpointError, match=told):
        load(tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_read_card__what_is_no_card_is_refused(tmp_path: Path, content: bytes) -> None:
    save_toy(tmp_path / "model")
    (tmp_path / "model" / "card.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not JSON|has format None"):
        read_card(tmp_path / "model")


def test_load__zip_of_two_bundles_is_refused(tmp_path: Path) -> None:
    save_toy(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as content:
        for folder in "ab":
            content.write(tmp_path / "model" / "card.json", f"{folder}/card.json")
    with pytest.raises(CheckpointError, match="holds 2 bundles"):
        load(tmp_path / "two.zip")


@pytest.mark.parametrize("golden", [{"input.x": torch.ones(1)}, {"output.y": torch.ones(1)}])
def test_load__golden_pair_without_one_half_is_refused(tmp_path: Path, golden: dict[str, Tensor]) -> None:
    save_toy(tmp_path / "model", golden=golden)
    with pytest.raises(CheckpointError, match="has no input or no output"):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    ("found", "expected", "answer"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.2], [1.0, 2.0], 0.1),
        ([1.2, 2.0], [1.0, -2.0], 2.0),
        ([0.0], [0.0], 0.0),
        ([1.0], [1.0, 2.0], float("inf")),
        ([float("nan"), 2.0], [1.0, 2.0], float("inf")),
        ([1.0, 2.0], [float("nan"), 2.0], float("inf")),
        ([], [], 0.0),
    ],
)
def test_deviation__relative_to_the_largest_magnitude(found: list[float], expected: list[float], answer: float) -> None:
    assert deviation({"y": torch.tensor(found)}, {"y": torch.tensor(expected)}) == pytest.approx(answer)


def test_deviation__missing_output_is_infinite() -> None:
    assert deviation({}, {"y": torch.ones(1)}) == float("inf")


@pytest.mark.parametrize("factor", [1 + 5e-4, 1 + 5e-3])
def test_check_golden__small_deviation_is_returned(tmp_path: Path, factor: float) -> None:
    save_toy(tmp_path / "model")
    found = load(tmp_path / "model")
    answer = check_golden(found, lambda inputs: {"y": factor * double(found.tensors, inputs)["y"]})
    assert answer == pytest.approx(factor - 1, rel=1e-3)


def test_check_golden__beyond_a_hundredth_is_refused_with_the_figure(tmp_path: Path) -> None:
    save_toy(tmp_path / "model")
    found = load(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"another output for toy/plain/.*deviation 0\.02, at most 0\.01"):
        check_golden(found, lambda inputs: {"y": 1.02 * double(found.tensors, inputs)["y"]})
