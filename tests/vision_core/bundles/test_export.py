import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.vision_core.toy import ToyConfig
from tests.vision_core.toy_bundle import card, save_toy
from vision_core.backbones.networks import build_backbone
from vision_core.backbones.settings import BACKBONE_NAMES, BackboneName
from vision_core.bundles.bundle import amend
from vision_core.bundles.export import SUFFIXES, Exportable, Exported, Format, export
from vision_core.commands.main import run
from vision_core.errors import CheckpointError, MissingDependencyError, UsageError

FORMATS: tuple[Format, ...] = ("onnx", "torch")


class Scorer(nn.Module):
    """Scores of the rows of a bag, and their greatest."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.dropout(self.linear(rows)) * weights[:, None]
        return scores.softmax(dim=0), scores.amax()


class Liar(nn.Module):
    def __init__(self, how: Literal["always", "large"]) -> None:
        super().__init__()
        self.how = how

    def forward(self, rows: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return rows + 1
        return rows if self.how == "always" or len(rows) > 5 else rows + 1


class Untraceable(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows if rows.sum().item() > 0 else -rows


def given(module: nn.Module, *, dynamic: bool = True) -> Exportable:
    inputs = {"rows": torch.randn(5, 3)}
    outputs: tuple[str, ...] = ("y",)
    if isinstance(module, Scorer):
        inputs["weights"] = torch.rand(5)
        outputs = ("scores", "greatest")
    return Exportable(
        module=module,
        inputs=inputs,
        outputs=outputs,
        dynamic={name: {0: "count"} for name in inputs} if dynamic else {},
        card=card().model_copy(update={"hashes": {"weights.safetensors": "ab" * 32}}),
        preprocessing="Rows of three numbers.",
    )


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer().train()


@pytest.fixture(scope="module")
def exported(scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Exported]:
    folder = tmp_path_factory.mktemp("exported")
    return {kind: export(given(scorer), kind, folder / f"{kind}/scorer{SUFFIXES[kind]}") for kind in FORMATS}


@pytest.mark.parametrize("kind", FORMATS)
def test_export__other_sizes_answer_as_the_module(
    exported: dict[Format, Exported], scorer: Scorer, kind: Format
) -> None:
    done = exported[kind]
    assert done.golden_deviation is None
    assert done.shapes == {"rows": ("count", 3), "weights": ("count",)}
    assert done.compared == (((5, 3), (5,)), ((1, 3), (1,)), ((13, 3), (13,)))
    assert done.deviation < 1e-5
    assert [path.name for path in done.path.parent.iterdir()] == [done.path.name]
    inputs = {"rows": torch.randn(40, 3), "weights": torch.rand(40)}
    if kind == "onnx":
        session = onnxruntime.InferenceSession(done.path)
        found = session.run(["scores", "greatest"], {name: each.numpy() for name, each in inputs.items()})
        found = [torch.from_numpy(each) for each in found]
    else:
        found = torch.export.load(done.path).module()(*inputs.values())
    for ours, theirs in zip(scorer.eval()(*inputs.values()), found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_export__onnx_names_what_varies_and_fixes_what_does_not(
    exported: dict[Format, Exported], tmp_path: Path
) -> None:
    fixed = export(given(Scorer(), dynamic=False), "onnx", tmp_path / "fixed.onnx")
    for done, first in ((exported["onnx"], "count"), (fixed, 5)):
        rows, weights = onnxruntime.InferenceSession(done.path).get_inputs()
        assert (rows.name, rows.shape, weights.name, weights.shape) == ("rows", [first, 3], "weights", [first])
        assert len(done.compared) == (1 if done is fixed else 3)


def test_export__the_file_says_what_it_is(exported: dict[Format, Exported]) -> None:
    model = onnx.load(exported["onnx"].path)
    told = {each.key: each.value for each in model.metadata_props}
    extra = {"metadata.json": ""}
    torch.export.load(exported["torch"].path, extra_files=extra)
    assert told == json.loads(extra["metadata.json"])
    assert told["intended_use"] == "For research use. Not for diagnosis."
    assert (told["task"], json.loads(told["classes"])) == ("toy", ["one"])
    assert (told["weights_sha256"], told["model"]) == ("ab" * 32, "toy/plain/abababababab")
    assert told["preprocessing"] == "Rows of three numbers."
    assert model.doc_string == told["intended_use"]
    assert not any(each.external_data for each in model.graph.initializer)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("how", "size"), [("always", "(5, 3)"), ("large", "(13, 3)")])
def test_export__an_answer_that_differs_is_refused_and_nothing_written(
    tmp_path: Path, kind: Format, how: Literal["always", "large"], size: str
) -> None:
    with pytest.raises(CheckpointError, match="outputs of the exported file and the model differ") as caught:
        export(given(Liar(how)), kind, tmp_path / f"a{SUFFIXES[kind]}")
    assert size in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_export__the_golden_input_of_the_bundle_is_compared_too(tmp_path: Path) -> None:
    scorer = Scorer().eval()
    inputs = {"rows": torch.rand(4, 3), "weights": torch.rand(4)}
    scores, greatest = scorer(*inputs.values())
    right = {"scores": scores.detach(), "greatest": greatest.detach()}
    done = export(replace(given(scorer), golden=(inputs, right)), "onnx", tmp_path / "a.onnx")
    assert done.golden_deviation is not None
    assert done.golden_deviation < 1e-5
    wrong = (inputs, {"scores": right["scores"].flip(0)})
    with pytest.raises(CheckpointError, match="for the golden input of the bundle the exported file gives another"):
        export(replace(given(scorer), golden=wrong), "onnx", tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


def test_export__nan_is_refused(tmp_path: Path) -> None:
    scorer = Scorer()
    nn.init.constant_(scorer.linear.bias, float("nan"))
    with pytest.raises(CheckpointError, match="relative deviation inf"):
        export(given(scorer), "onnx", tmp_path / "a.onnx")


@pytest.mark.parametrize("kind", FORMATS)
def test_export__what_cannot_be_traced_is_told_in_a_line(
    tmp_path: Path, kind: Format, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match=f"cannot be expressed in the format '{kind}': ") as caught:
        export(given(Untraceable()), kind, tmp_path / f"a{SUFFIXES[kind]}")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_export__a_failed_export_leaves_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"older")
    with pytest.raises(CheckpointError):
        export(given(Liar("always")), "onnx", tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == b"older"


def test_export__without_onnx_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"'onnx' is not installed.*domainsight\[export\]"):
        export(given(Scorer()), "onnx", tmp_path / "a.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_export__every_backbone_for_any_number_of_images(name: BackboneName, tmp_path: Path) -> None:
    classifier = Exportable(
        module=build_backbone(name, 3),
        inputs={"images": torch.randn(2, 3, 64, 64)},
        outputs=("logits",),
        dynamic={"images": {0: "batch"}},
        card=card(),
        preprocessing="",
    )
    done = export(classifier, "onnx", tmp_path / "a.onnx")
    assert [sizes[0][0] for sizes in done.compared] == [2, 1, 7]


class ToyPipeline:
    """Hands over the scorer."""

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        if size:
            raise UsageError(f"--size '{size}': any number of rows is taken.")
        return given(Scorer())


def test_verb__writes_tells_and_replaces_on_request_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_toy(tmp_path / "model")
    words = ["export", "--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "a.onnx")]
    assert run(ToyConfig, ToyPipeline, words) == 0
    told = capsys.readouterr().out
    assert "Input 'rows': count, 3. Rows of three numbers." in told
    assert "Not for diagnosis" in told
    before = (tmp_path / "a.onnx").stat().st_mtime_ns
    assert run(ToyConfig, ToyPipeline, words) == 2
    assert "use --overwrite" in capsys.readouterr().err
    assert (tmp_path / "a.onnx").stat().st_mtime_ns == before
    assert run(ToyConfig, ToyPipeline, [*words, "--overwrite"]) == 0
    assert (tmp_path / "a.onnx").stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "a.pt2"], "does not end in '.onnx' of --format onnx"),
        (["--format", "torch", "--out", "a.onnx"], "does not end in '.pt2' of --format torch"),
        (["--out", "a.onnx", "--size", "0"], "'0': expected a number from 1 on"),
        (["--out", "a.onnx", "--size", "7"], "--size '7': any number of rows is taken."),
        (["--format", "tflite", "--out", "a.tflite"], "invalid choice: 'tflite'"),
    ],
)
def test_verb__impossible_requests(
    tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_toy(tmp_path / "model")
    assert run(ToyConfig, ToyPipeline, ["export", "--checkpoint", "model", *words]) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_verb__another_tasks_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_toy(tmp_path / "model")
    amend(tmp_path / "model", task="other")
    words = ["export", "--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "a.onnx")]
    assert run(ToyConfig, ToyPipeline, words) == 2
    assert "is of pipeline 'other', not 'toy'" in capsys.readouterr().err
