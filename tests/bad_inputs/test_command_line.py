"""Rows A1 to A15: the command line, settings files, and folders to write to."""

import os
import shlex
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pipelines.pretrain import __main__ as pretrain
from pipelines.sfod import __main__ as sfod
from pipelines.sfod.pipeline import SfodPipeline
from pipelines.wsi import __main__ as wsi
from tests.bad_inputs import museum
from tests.bad_inputs.seen import Seen, tree
from tests.pipelines.wsi.tiny import make_features
from vision_core.errors import Interrupted

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]
Usage = namedtuple("Usage", "total used free")


# --- A1 to A5: settings ---


def test_a1__missing_file_names_the_nearest(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").touch()
    seen.refused(["train", "--config", "dmo.yaml"], 2, "dmo.yaml does not exist. Did you mean 'demo.yaml'?")


def test_a1__folder_instead_of_a_file(seen: Seen, tmp_path: Path) -> None:
    seen.refused(["train", "--config", str(tmp_path)], 2, "is a folder; give the YAML file in it")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("train:\n\tepochs: 3", "a.yaml:2:1: ", id="A2 tabs"),
        pytest.param("method: mt\nmethod: bn", "a.yaml:2:1: key 'method' is given twice", id="A2 twice"),
        pytest.param("train.epochs: 1\ntrain: {epochs: 2}", "train.epochs: is given twice", id="A2 twice, dotted"),
        pytest.param("thresold: 0.5", "did you mean 'pseudo_labels.threshold'?", id="A3 at the top"),
        pytest.param("pseudo_labels: {thresold: 0.5}", "did you mean 'threshold'?", id="A3 in its section"),
        pytest.param("train: {epochs: ten}", "train.epochs: should be a valid integer, got 'ten'", id="A4 type"),
        pytest.param("teacher.keep_rate: 1.7", "should be less than or equal to 1, got 1.7", id="A4 keep rate"),
        pytest.param("pseudo_labels.threshold: -1", "a number from 0 to 1, or auto, got -1", id="A4 threshold"),
        pytest.param("optim.lr: .nan", "optim.lr: should be a finite number, got nan", id="A5 nan"),
        pytest.param("optim.lr: -.inf", "optim.lr: should be a finite number, got -inf", id="A5 infinity"),
        pytest.param("runs: [a]", "runs: should map names to keys", id="runs as a list"),
        pytest.param("runs: {fog: {train.epoch: 1}}", "a.yaml, run 'fog']", id="the run is named"),
        pytest.param("a: &a [1]\nb: *a", "alias '*a'", id="alias"),
        pytest.param("- method: mt", "found a list", id="list"),
        pytest.param("[" * 3000, "cannot be read", id="deep"),
        pytest.param("method: !!python/name:os.system", "python/name:os.system", id="python object"),
    ],
)
def test_a2_to_a5__bad_settings_file(seen: Seen, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    seen.refused(["train", "--config", "a.yaml"], 2, told)
    assert tree(tmp_path) == {"a.yaml"}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("thresold=0.5", "did you mean 'pseudo_labels.threshold'?"),
        ("optim.lr=inf", "should be a finite number, got 'inf'"),
        ("train=3", "train: should be a section"),
        ("train.epochs=", "got nothing"),
        ("=3", "expected key=value"),
        ("train.epochs", "expected key=value"),
        ("data.root=", "data.root: got nothing (an unset variable?); give a value, or data.root=null"),
        ("source.weights=", "source.weights: got nothing"),
        ("optim.lr=1e308", "optim.lr: should be less than or equal to 1000, got '1e308'"),
        ("optim.lr=-1", "optim.lr: should be greater than 0, got -1"),
        ("optim.weight_decay=1e308", "optim.weight_decay: should be less than or equal to 1000"),
        ("optim.clip_norm=1e308", "optim.clip_norm: should be between -2147483647 and 2147483647"),
        ("lpld.weight=1e300", "lpld.weight: should be between"),
        ("detector.anchor_sizes=[[1e300]]", "detector.anchor_sizes: should be between"),
        ("detector.anchor_sizes=[[0]]", "detector.anchor_sizes.0.0: should be greater than 0, got 0"),
        ("detector.anchor_ratios=[]", "detector.anchor_ratios: "),
        ("detector.pixel_std=[1, 0, 1]", "detector.pixel_std.1: should be greater than 0, got 0"),
        ("detector.pool_size=2147483647", "detector.pool_size: should be less than or equal to 256"),
        ("lpld.weight=1.0e-300", "lpld.weight: should be 0, or at least 1e-30 away from it"),
        ("train.batch_size=0", "train.batch_size: should be greater than or equal to 1, got 0"),
        ("train.batch_size=99999999999999999999", "train.batch_size: should be between"),
        ("train.workers=100000", "train.workers: should be auto, or a number from 0 to 1024, got 100000"),
        ("method=lpdl", "or 'oracle', got 'lpdl'"),
    ],
)
def test_a3_to_a5__bad_word(seen: Seen, word: str, told: str) -> None:
    seen.refused(["train", word], 2, told)


def test_a3__option_that_is_a_setting(seen: Seen) -> None:
    seen.refused(["train", "--thresold", "0.5"], 2, "Did you mean the setting 'pseudo_labels.threshold='?")


# --- A7 and A8: where to write ---


@pytest.mark.parametrize(
    ("name", "text"), [("run.json", '{"status": "done"}'), ("config.yaml", "{method, data, source, train, optim}")]
)
def test_a7__folder_of_another_run_is_not_touched(seen: Seen, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text(text)
    words = ["data.root=.", "data.format=images"]
    seen.refused(["train", "--out", "run", *words], 2, "run holds another run. Use --resume")
    assert tree(tmp_path) == {f"run/{name}"}
    assert (tmp_path / "run" / name).read_text() == text


@pytest.mark.parametrize("name", ["run.json", "last.pt", "config.yaml", "model/net.py"])
@pytest.mark.parametrize("option", [[], ["--overwrite"]])
def test_a7__files_that_are_named_as_ours_are_not_ours(
    seen: Seen, tmp_path: Path, name: str, option: list[str]
) -> None:
    path = tmp_path / "project" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine: true")
    text = seen.refused(["train", "--out", "project", *option, "data.root=."], 2, "is no run folder: it holds 1 other")
    assert "--overwrite" not in text
    assert path.read_text() == "mine: true"


@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
def test_a7__folder_that_is_no_run_is_never_overwritten(seen: Seen, tmp_path: Path, option: str) -> None:
    project = {"project/config.yaml", "project/model/net.py", "project/thesis.tex"}
    for name in project:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    seen.refused(["train", "--out", "project", option, "data.root=."], 2, "is no run folder: it holds 1 other files")
    assert tree(tmp_path) == project


def test_a7__resume_without_a_run(seen: Seen, tmp_path: Path) -> None:
    seen.refused(["train", "--out", "empty", "--resume"], 2, "There is no run in 'empty' to resume")
    seen.refused(["train", "--resume"], 2, "--resume needs --out")
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("out", ["/proc/run", "/sys/run", "file/run", "a" * 300])
def test_a8__folder_that_cannot_be_written(seen: Seen, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    seen.refused(["train", "--out", out, "data.root=."], 5, "cannot be written: ")
    assert tree(tmp_path) == {"file"}


def test_a8__file_as_folder(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    seen.refused(["train", "--out", "file", "data.root=."], 2, "file is a file; give a folder")


def test_a8__empty_path_is_not_the_current_folder(seen: Seen) -> None:
    seen.refused(["train", "--out", ""], 2, "--out: the path is empty")


# --- A9: nothing to read ---


@pytest.mark.parametrize("verb", ["train", "validate"])
def test_a9__folder_without_images_says_what_is_there(seen: Seen, tmp_path: Path, bundle: Path, verb: str) -> None:
    folder = museum.a09_other_files_only(tmp_path)
    words = [f"data.root={folder}", "data.format=images", f"source.weights={bundle}"]
    seen.refused([verb, *words], (2, 3), "0 images; 14 .txt")


def test_a9__predict_on_a_folder_without_images(seen: Seen, tmp_path: Path, bundle: Path) -> None:
    folder = museum.a09_other_files_only(tmp_path)
    argv = ["predict", "--checkpoint", str(bundle), "--input", str(folder), "--out", "found"]
    seen.refused(argv, (2, 3), "0 images; 14 .txt")


def test_a9__input_that_does_not_exist(seen: Seen, bundle: Path) -> None:
    argv = ["predict", "--checkpoint", str(bundle), "--input", "absent", "--out", "found"]
    seen.refused(argv, (2, 3), "absent")


# --- A13 and A14: the machine ---


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("argv", [["--device", "cuda"], ["train.device=cuda:1"]])
def test_a13__gpu_that_is_not_there(seen: Seen, tmp_path: Path, argv: list[str]) -> None:
    seen.refused(["train", "data.root=.", *argv], 5, "use --device cpu")
    assert tree(tmp_path) == set()


def test_a13__device_that_is_none(seen: Seen) -> None:
    seen.refused(["train", "data.root=.", "--device", "gpu"], 2, "'gpu' is not a device; use auto, cpu, cuda or cuda:N")


def test_a14__too_little_space_is_told_before_training(
    seen: Seen, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The disk itself cannot be made small: what it answers is.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total=2**40, used=2**40, free=2**20))
    words = [f"data.root={museum.two_images(tmp_path / 'in')}", "data.format=images", f"source.weights={bundle}"]
    seen.refused(["train", "--out", "run", *words], 5, "checkpoints need about ", "1 MiB are free")
    assert not (tmp_path / "run" / "last.pt").exists()


# --- what only looks ---


def test_show_config__prints_every_setting_and_writes_nothing(seen: Seen, tmp_path: Path) -> None:
    out = seen.done(["train", "--show-config", "train.epochs=3"])
    assert "# run: night" in out
    assert out.count("  epochs: 3") == 3
    assert "# Detections with a score strictly above are pseudo labels." in out
    assert tree(tmp_path) == set()


def test_dry_run__counts_and_writes_nothing(seen: Seen, tmp_path: Path, bundle: Path) -> None:
    folder = museum.two_images(tmp_path / "in")
    before = tree(tmp_path)
    words = [f"data.root={folder}", "data.format=images", f"source.weights={bundle}", "train.epochs=4"]
    out = seen.done(["train", "--dry-run", *words])
    assert "3 items" in out
    assert "12 steps" in out
    assert tree(tmp_path) == before


def test_dry_run__of_the_demo_says_what_would_be_made(seen: Seen, tmp_path: Path) -> None:
    assert seen.done(["train", "--dry-run"]).count("demo's data") == 3
    assert tree(tmp_path) == set()


# --- real processes ---


def started(argv: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "pipelines.sfod", *argv]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)


@pytest.mark.parametrize("forced", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=["C", "ASCII"])
def test_a15__locale_c_reads_and_writes_utf8(tmp_path: Path, forced: dict[str, str]) -> None:
    (tmp_path / "größe.yaml").write_text("method: größe 木", encoding="utf-8")
    found = started(["train", "--config", "größe.yaml"], tmp_path, LC_ALL="C", **forced)
    assert found.returncode == 2
    assert "got 'größe 木'" in found.stderr.decode("utf-8")


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"]])
def test_help__needs_no_torch(argv: list[str]) -> None:
    code = (
        "import sys\nfrom pipelines.sfod.__main__ import main\n"
        f"try:\n    main({argv})\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0
    assert found.stderr == "False\n"
    assert found.stdout.startswith("usage: python -m pipelines.sfod")


def test_a7__data_folder_of_a_person_is_not_the_demos(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "project" / "data").mkdir(parents=True)
    (tmp_path / "project" / "data" / "thesis.csv").write_text("precious")
    seen.refused(["train", "--out", "project"], 2, "project/data")
    assert tree(tmp_path) == {"project/data/thesis.csv"}


def test_a7__refused_resume_leaves_the_settings_of_the_run(seen: Seen, tmp_path: Path, bundle: Path) -> None:
    words = [
        f"data.root={museum.two_images(tmp_path / 'in')}",
        "data.format=images",
        f"source.weights={bundle}",
        "train.epochs=1",
        "pseudo_labels.on_nothing=continue",
    ]
    seen.done(["train", "--out", "run", *words])
    before = (tmp_path / "run" / "config.yaml").read_text()
    seen.refused(["train", "--out", "run", "--resume", "optim.lr=0.5"], 2, "optim.lr: 0.001 then, 0.5 now")
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    seen.done(["train", "--out", "run", "--resume"])


# --- the demo is not started by mistake ---


@pytest.mark.parametrize("task", [sfod, wsi, pretrain], ids=lambda task: task.__name__.split(".")[1])
@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_train__without_a_root_says_what_is_missing(
    task: ModuleType, option: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = Seen(task.main, capsys)
    seen.refused(["train", "data.root=", *option], 2, "data.root: got nothing (an unset variable?)")
    word = {sfod: "data.format=coco", wsi: "data.labels=labels.csv", pretrain: "data.labels=labels.csv"}[task]
    told = f"data.root is missing: '{word.partition('=')[0]}' is given"
    seen.refused(["train", word, *option], 2, told, "data.root=FOLDER")
    (tmp_path / "own.yaml").write_text(word.replace("=", ": "))
    seen.refused(["train", "--config", "own.yaml", *option], 2, told)
    assert tree(tmp_path) == {"own.yaml"}


def test_train__features_and_labels_of_slides_without_a_root(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_features(tmp_path)
    words = ["data.labels=labels.csv", "data.features=features", "--dry-run"]
    told = Seen(wsi.main, capsys).done(["train", *words, "method=plain"])
    assert "classes and their numbers of slides: 0 is 'normal' (4), 1 is 'tumour' (4)" in told
    Seen(wsi.main, capsys).refused(["train", "data.labels=no.csv", *words[1:]], 2, "'no.csv' does not exist")
    assert {path.partition("/")[0] for path in tree(tmp_path)} == {"labels.csv", "features"}


def test_train__stopped_before_its_settings_are_written_advises_no_resume(
    seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.sfod.pipeline.make_demo_data", stop)
    _, err = seen.ended(["train", "--out", "run"], 130)
    assert err == "error[INTERRUPTED] Stopped.\n"
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_train__stopped_while_it_prepares_can_be_resumed_as_it_says(
    seen: Seen, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise Interrupted("Stopped.")

    words = [
        f"data.root={museum.two_images(tmp_path / 'in')}",
        "data.format=images",
        f"source.weights={bundle}",
        "train.epochs=1",
        "pseudo_labels.on_nothing=continue",
    ]
    with monkeypatch.context() as patched:
        patched.setattr(SfodPipeline, "prepare", stop)
        _, err = seen.ended(["train", "--out", "run", *words], 130)
    assert err.endswith("Resume with: python -m pipelines.sfod train --out run --resume\n")
    seen.done(shlex.split(err.rpartition("pipelines.sfod ")[2]))
