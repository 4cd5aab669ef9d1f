"""Every task, a folder of pipelines/ with a pipeline.py, goes through the life of a run by its own command line."""

import importlib
import json
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from tests.pipelines.contract import TinyTask
from vision_core.signals import StopRequest
from vision_core.training import loop as training

_PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
TASKS = sorted(path.parent.name for path in _PIPELINES.glob("*/pipeline.py"))


@dataclass(frozen=True, kw_only=True)
class Life:
    """One task and the folder of a run that it has finished."""

    main: Callable[[list[str]], int]
    tiny: TinyTask
    data: Path
    run: Path

    def train(self, out: Path, *words: str) -> int:
        return self.main(["train", "--out", str(out), *self.tiny.words(self.data), *words])


@pytest.fixture(scope="module", params=TASKS)
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """A task whose training has gone through undisturbed."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny: TinyTask = importlib.import_module(f"tests.pipelines.{request.param}.tiny").TASK
    main = importlib.import_module(f"pipelines.{request.param}.__main__").main
    found = Life(main=main, tiny=tiny, data=tiny.make_data(folder / "data"), run=folder / "run")
    assert found.train(found.run) == 0
    return found


def _slow_but_for(*quick: str) -> pytest.MarkDecorator:
    """All tasks, of which some show quickly what all do."""
    marked = [pytest.param(task, marks=() if task in quick else pytest.mark.slow) for task in TASKS]
    return pytest.mark.parametrize("life", marked, indirect=True)


def test_tasks__at_least_one_is_found() -> None:
    assert "sfod" in TASKS


def test_train__leaves_a_whole_run(life: Life) -> None:
    kept = {"config.yaml", "metrics.jsonl", "run.json", "last.pt", "model", "evaluation.json", "report.html"}
    assert kept <= {path.name for path in life.run.iterdir()}
    facts = json.loads((life.run / "run.json").read_text())
    assert facts["status"] == "done"
    assert facts["updates"] >= 2
    assert not list(life.run.glob(".partial-*"))


@_slow_but_for("wsi")  # of the others, the test of resuming needs the same bits of two runs
def test_train__same_settings_same_bits(life: Life, tmp_path: Path) -> None:
    assert life.train(tmp_path / "again") == 0
    assert _weights(tmp_path / "again") == _weights(life.run)


def test_resume__stopped_after_a_step_ends_with_the_same_bits(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(training, "stop_signals", lambda: nullcontext(StopRequest(requested=True)))
        assert life.train(out) == 130
    assert f"{out} --resume" in capsys.readouterr().err
    assert not (out / "model").exists()
    assert life.main(["train", "--out", str(out), "--resume"]) == 0
    assert "Resuming at step 1 of" in capsys.readouterr().out
    assert _weights(out) == _weights(life.run)


@_slow_but_for("ultrasound", "wsi")
def test_resume__a_finished_run_stays_as_it_is(life: Life) -> None:
    before = _weights(life.run)
    assert life.main(["train", "--out", str(life.run), "--resume"]) == 0
    assert _weights(life.run) == before


def test_train__a_used_folder_is_refused_and_nothing_is_touched(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    before = _snapshot(life.run)
    assert life.train(life.run) == 2
    assert re.fullmatch(r"error\[USAGE\] .*holds another run\. Use --resume .*\n", capsys.readouterr().err)
    assert _snapshot(life.run) == before


@pytest.mark.parametrize("flag", ["--dry-run", "--show-config"])
def test_train__rehearsal_writes_nothing(
    flag: str, life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert life.train(tmp_path / "none", flag) == 0
    assert capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@_slow_but_for("wsi")
def test_train__seeds_get_a_folder_each_and_a_table(
    life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert life.train(tmp_path, "--seeds", "0,1", "train.epochs=1") == 0
    assert all((tmp_path / f"seed-{seed}" / "model" / "card.json").exists() for seed in range(2))
    told = capsys.readouterr().out
    assert "over 2 seeds" in told
    assert all(f"Model:     {tmp_path / f'seed-{seed}' / 'model'}\n" in told for seed in range(2))


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_demo_data__is_written_once(
    is_whole: bool, life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not is_whole:
        life.tiny.shorten_demo(monkeypatch)
    assert life.main(["demo-data", "--out", str(tmp_path / "demo")]) == 0
    assert (tmp_path / "demo" / "ATTRIBUTION.txt").exists()
    assert life.main(["demo-data", "--out", str(tmp_path / "demo")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_validate__sound_data(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    assert life.main(["validate", *life.tiny.words(life.data)]) == 0
    assert " 0 faults" in capsys.readouterr().out


def test_evaluate__repeats_the_figures_of_the_run(
    life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert life.main(["evaluate", "--checkpoint", str(life.run / "model"), "--out", str(tmp_path)]) == 0
    assert "Not for diagnosis" in capsys.readouterr().out
    [row] = json.loads((tmp_path / "evaluation.json").read_text())
    at_the_end = json.loads((life.run / "evaluation.json").read_text())[-1]
    assert {**row, "model": ""} == {**at_the_end, "model": ""}


def test_predict__every_input_once(life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "--checkpoint", str(life.run / "model"), "--out", str(tmp_path)]
    words += ["--input", str(life.tiny.inputs(life.data))]
    assert life.main(words) == 0
    count = len(list(life.tiny.inputs(life.data).iterdir()))
    assert f"{count} of {count} inputs done" in capsys.readouterr().out
    before = _snapshot(tmp_path / "outputs")
    assert life.main(words) == 0
    assert _snapshot(tmp_path / "outputs") == before


def test_predictor__takes_paths_as_strings(life: Life, tmp_path: Path) -> None:
    module = importlib.import_module(life.main.__module__.replace("__main__", "predict"))
    predictor = getattr(module, f"{module.__name__.split('.')[1].capitalize()}Predictor")
    item = str(min(life.tiny.inputs(life.data).iterdir()))
    loaded = predictor.from_checkpoint(str(life.run / "model"), device="cpu")
    written = loaded.write(loaded(item), item, str(tmp_path))
    assert written
    assert all(path.parent == tmp_path and path.stat().st_size for path in written)


@_slow_but_for("ultrasound", "wsi")
def test_export__a_file_that_answers_as_the_bundle(
    life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--checkpoint", str(life.run / "model"), "--format", "onnx", "--out", str(tmp_path / "a.onnx")]
    assert life.main(words) == 0
    told = capsys.readouterr().out
    assert re.search(r"Compared on \d+ sizes: relative deviation", told)
    assert "Not for diagnosis" in told
    model = onnx.load(tmp_path / "a.onnx")
    facts = {each.key: each.value for each in model.metadata_props}
    card = json.loads((life.run / "model" / "card.json").read_text())
    assert facts["weights_sha256"] == card["hashes"]["weights.safetensors"]
    assert json.loads(facts["classes"]) == card["classes"]
    assert life.main(words) == 2
    assert "use --overwrite" in capsys.readouterr().err


def test_report__is_one_page(life: Life) -> None:
    (life.run / "report.html").unlink()
    assert life.main(["report", "--run", str(life.run)]) == 0
    assert "Not for diagnosis" in (life.run / "report.html").read_text()


def test_verify__sound_and_damaged(life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert life.main(["verify", str(life.run / "model")]) == 0
    damaged = shutil.copytree(life.run / "model", tmp_path / "model")
    content = bytearray((damaged / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "weights.safetensors").write_bytes(content)
    assert life.main(["verify", str(damaged)]) == 2
    assert "error[CHECKPOINT]" in capsys.readouterr().err


def test_import_weights__gives_a_bundle_that_verifies(
    life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if life.tiny.make_foreign is None:
        pytest.skip("this task imports no foreign checkpoints")
    file, words = life.tiny.make_foreign(tmp_path / "foreign")
    command = ["import-weights", str(file), "--out", str(tmp_path / "bundle"), *words]
    assert life.main(command) == 0
    assert life.main(["verify", str(tmp_path / "bundle")]) == 0
    assert life.main(command) == 2
    assert "use --overwrite" in capsys.readouterr().err


def _weights(run: Path) -> bytes:
    return (run / "model" / "weights.safetensors").read_bytes()


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = [(path, path.stat()) for path in folder.rglob("*")]
    return {str(path): (stat.st_mtime_ns, stat.st_size) for path, stat in found}
