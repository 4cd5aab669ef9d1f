import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.forked import run
from tests.vision_core.toy_bundle import FILES, card, double, edit_card, save_toy, weights
from vision_core.bundles.bundle import Golden, add_metrics, amend, check_golden, deviation, load, read_card, save
from vision_core.bundles.card import Card, canonical, seal
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
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
try:
    save_toy(Path(sys.argv[1]), storage="fp16")
except EnvironmentFault as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)  # of what is printed, too
    print(error)
"""


def test_save__full_disk_leaves_the_older_bundle(tmp_path: Path) -> None:
    saved = save_toy(tmp_path / "model")
    told, _ = run(["-c", FILL, str(tmp_path / "model")])
    assert "file too large, after 50 bytes" in told
    assert load(tmp_path / "model").card == saved
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_load__bundle_of_another_pipeline_is_refused(tmp_path: Path) -> None:
    save_toy(tmp_path / "model")
    with pytest.raises(
        CheckpointError, match=r"is of pipeline 'toy', not 'sfod'\. Give a bundle made by pipelines\.sfod"
    ):
        load(tmp_path / "model", "sfod")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.update(format=3), "has format 3, this version reads 1 to 2. Update domainsight"),
        (lambda content: content.update(format=True), "has format True"),
        (lambda content: content.update(format="2"), "has format '2'"),
        (lambda content: content.pop("format"), "has format None"),
        (lambda content: content.update(format=1), "has format 1, which has no sha256; it was changed"),
        (lambda content: content.update(format=1, sha256=None), "golden.safetensors is of format 2: the card was"),
        (lambda content: content.update(class_titles={"two": "Two"}), "names 'two', which is none of the classes"),
        (lambda content: content.update(classes=["one", "one"]), "classes names 'one' more than once"),
        (lambda content: content.update(classes=["one", " "]), "classes holds a name without a letter"),
        (lambda content: content.pop("task"), "task: Field required"),
        (lambda content: content.update(surprise=1), "surprise: Extra inputs"),
        (lambda content: content.update(classes="a"), "classes: "),
        (lambda content: content.update(hashes={}), r"lists hashes of \[\]"),
        (lambda content: content["hashes"].update({"../../etc/weights.safetensors": "0"}), "lists hashes of"),
        (lambda content: content["hashes"].update({"weights.safetensors": "0" * 64}), "the card says 000000000000"),
    ],
)
def test_load__card_is_checked(tmp_path: Path, change: Callable[[dict[str, Any]], object], told: str) -> None:
    save_toy(tmp_path / "model")
    edit_card(tmp_path / "model", change)
    with pytest.raises(CheckpointError, match=told):
        load(tmp_path / "model")


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "class": lambda content: content.update(classes=["other"]),
    "metric": lambda content: content.update(metrics={"auc": 1.0}),
    "deep": lambda content: content["trained_on"].update(synthetic=False),
    "one is not 1.0": lambda content: content["config"].update(a=1),
    "no seal": lambda content: content.pop("sha256"),
    "another seal": lambda content: content.update(sha256="0" * 64),
    "seal of no text": lambda content: content.update(sha256=[1]),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_load__an_edited_card_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    described = card().model_copy(update={"config": {"a": 1.0, "ü": [1e-5, None]}})
    save(tmp_path / "model", weights(), described, Golden(inputs={"x": torch.ones(2)}, answer=double))
    edit_card(tmp_path / "model", change, sealed=False)
    for read in (load, read_card):
        with pytest.raises(CheckpointError, match=r"card\.json was changed after it was written: .*Fetch the bundle"):
            read(tmp_path / "model")


def test_load__a_card_written_otherwise_is_the_same_card(tmp_path: Path) -> None:
    """Order of the keys, blanks and escapes of letters do not count."""
    described = card().model_copy(update={"config": {"b": "ü", "a": 1e-5, "c": float("nan")}})
    saved = save(tmp_path / "model", weights(), described, Golden(inputs={"x": torch.ones(2)}, answer=double))
    path = tmp_path / "model" / "card.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items()))))
    assert read_card(tmp_path / "model").identity() == saved.identity()


def test_canonical__sorted_without_blanks_in_utf8() -> None:
    content = {"b": [1, 2.0, None], "sha256": "of another", "a": {"ü": True, "é": "x y"}}
    assert canonical(content) == '{"a":{"é":"x y","ü":true},"b":[1,2.0,null]}'.encode()
    assert seal(content) == hashlib.sha256(canonical(content)).hexdigest()


def test_add_metrics__seals_anew(tmp_path: Path) -> None:
    before = save_toy(tmp_path / "model")
    add_metrics(tmp_path / "model", {"test": {"auc": 0.5}})
    amend(tmp_path / "model", calibration={"operating_score": 0.4})
    found = load(tmp_path / "model").card
    assert (found.metrics, found.calibration) == ({"test": {"auc": 0.5}}, {"operating_score": 0.4})
    assert found.sha256 != before.sha256
    assert found.hashes == before.hashes


def as_format_1(folder: Path) -> None:
    """What versions before format 2 wrote: no seal, and a golden pair that says nothing of its format."""
    save_file(load_file(folder / "golden.safetensors"), folder / "golden.safetensors")
    digest = hashlib.sha256((folder / "golden.safetensors").read_bytes()).hexdigest()
    edit_card(
        folder,
        lambda content: content.update(
            format=1, sha256=None, hashes={**content["hashes"], "golden.safetensors": digest}
        ),
    )
    edit_card(folder, lambda content: [content.pop(name) for name in ("sha256", "class_titles")])


def test_load__format_1_is_told_of_once_and_stays_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_toy(tmp_path / "model")
    as_format_1(tmp_path / "model")
    add_metrics(tmp_path / "model", {"test": {"auc": 0.5}})
    found = load(tmp_path / "model")
    assert not {"sha256", "class_titles"} & set(json.loads((tmp_path / "model" / "card.json").read_text()))
    assert check_golden(found, lambda inputs: double(found.tensors, inputs)) == 0
    assert (found.card.format, found.card.sha256, found.card.metrics) == (1, None, {"test": {"auc": 0.5}})
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1
    assert told[0].endswith("/model' is of format 1: its card has no seal, so edits cannot be seen.")
    save(tmp_path / "anew", found.tensors, found.card, Golden(inputs={"x": torch.ones(2)}, answer=double))
    assert load(tmp_path / "anew").card.format == 2


def test_card__titles_are_of_classes() -> None:
    fields = card().model_dump()
    assert Card.model_validate({**fields, "class_titles": {"one": "Number one"}}).class_titles["one"] == "Number one"
    with pytest.raises(ValueError, match="'two', which is none of the classes"):
        Card.model_validate({**fields, "class_titles": {"two": "Number two"}})


@pytest.mark.parametrize(
    ("titles", "told"),
    [
        ({"one": "Same", "two": "Same"}, "two classes are shown as 'Same'"),
        ({"one": "two"}, "two classes are shown as 'two'"),
        ({"one": "two", "two": "one"}, "shows a class as 'two', which is another class"),
    ],
)
def test_card__titles_tell_the_classes_apart(titles: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Card.model_validate({**card().model_dump(), "classes": ("one", "two"), "class_titles": titles})


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
