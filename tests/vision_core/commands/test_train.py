"""The verb ``train`` on a few feature files: changed settings of a resumed run, what it says and records."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from pipelines.wsi.__main__ import main
from tests.pipelines.wsi.tiny import FEATURE_WORDS, make_features
from tests.vision_core.toy import ToyItems, ToyLearner, toy_config
from vision_core.commands.train_one import introduce
from vision_core.training.learner import Prepared

PLAIN = ("method=plain", "data.protocol=given", *FEATURE_WORDS)
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two epochs."""
    data = make_features(tmp_path / "data")
    assert main(["train", "--out", str(tmp_path / "run"), f"data.root={data}", *PLAIN]) == 0
    return tmp_path / "run"


def resume(run: Path, *words: str) -> int:
    return main(["train", "--out", str(run), "--resume", *words])


def test_train__accepted_changes_stand_in_the_record(run: Path, capsys: Capture) -> None:
    steps = json.loads((run / "run.json").read_text())["step"]
    assert resume(run, "optim.lr=0.001", "train.epochs=3") == 2
    assert "add --accept-changes to go on with the new ones" in capsys.readouterr().err
    assert resume(run, "--accept-changes", "optim.lr=0.001", "train.epochs=3") == 0
    assert "changed: optim.lr was 0.01, is 0.001 from here on" in capsys.readouterr().out
    facts = json.loads((run / "run.json").read_text())
    assert facts["step"] == 3 * steps // 2
    assert [each["settings"] for each in facts["changes"]] == [{"optim.lr": [0.01, 0.001], "train.epochs": [2, 3]}]
    assert (facts["settings"]["train"]["epochs"], facts["status"]) == (3, "done")
    assert resume(run) == 0  # config.yaml has them too
    assert len(json.loads((run / "run.json").read_text())["changes"]) == 1


def test_train__data_that_have_moved(run: Path, capsys: Capture) -> None:
    moved = (run.parent / "data").rename(run.parent / "moved")
    assert resume(run) == 2
    assert resume(run, f"data.root={moved}") == 2
    assert resume(run, "--accept-changes", f"data.root={moved}") == 0
    assert resume(run) == 0


def test_train__other_changes_are_refused_by_name_and_touch_nothing(run: Path, capsys: Capture) -> None:
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert resume(run, "--accept-changes", "train.seed=5", "optim.lr=0.001") == 2
    told = capsys.readouterr().err
    assert re.search(r"other settings \(train\.seed: 0 then, 5 now\)\. Resume with the same, or use --overwrite", told)
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_train__accept_changes_is_for_a_resumed_run(tmp_path: Path, capsys: Capture) -> None:
    assert main(["train", "--accept-changes", "--out", str(tmp_path / "run"), "data.root=x", *PLAIN]) == 2
    assert "--accept-changes is for --resume" in capsys.readouterr().err


def test_train__a_diverged_run_goes_on_with_a_lower_rate(run: Path, tmp_path: Path, capsys: Capture) -> None:
    """As its message says."""
    assert resume(run, "--accept-changes", "optim.lr=1000", "train.epochs=40", "train.save_every=1") in {0, 2}
    state = torch.load(run / "last.pt", weights_only=True)
    state["learner"] = {
        name: torch.full_like(entry, torch.nan) if "weight" in name else entry
        for name, entry in state["learner"].items()
    }
    torch.save(state, run / "last.pt")
    assert resume(run, "--accept-changes", "optim.lr=0.0001") == 0


def test_train__a_name_that_is_no_utf8_is_left_out_and_told(tmp_path: Path, capsys: Capture) -> None:
    data = make_features(tmp_path / "data")
    source = (data / "features" / "s0.h5").read_bytes()
    (data / "features" / os.fsdecode(b"stra\xffnge.h5")).write_bytes(source)
    words = ["train", "--out", str(tmp_path / "run"), f"data.root={data}", "data.on_missing=drop", *PLAIN]
    assert main([*words, "--dry-run"]) == 0
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "files without a label, left out: 1 (stra" in told
    told.encode()
    notes = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["notes"]
    assert any("left out: 1 (stra" in note for note in notes)
    assert main(["report", "--run", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(("drop_last", "steps"), [(False, 6), (True, 4)])
def test_introduce__counts_the_steps_that_are_taken(drop_last: bool, steps: int, capsys: Capture) -> None:
    config = toy_config(**{"train.epochs": 2, "train.batch_size": 3, "train.drop_last": drop_last})
    introduce("toy", config, Prepared(learner=ToyLearner(), items=ToyItems(7)))
    assert f"7 items, {steps} steps of 3" in capsys.readouterr().out


@pytest.mark.parametrize(("drop_last", "items"), [(False, 7), (True, 6)])
def test_introduce__counts_the_items_after_which_the_teacher_moves(
    drop_last: bool, items: int, capsys: Capture
) -> None:
    config = toy_config(**{"train.batch_size": 3, "train.accumulate": 2, "train.drop_last": drop_last})
    learner = ToyLearner()
    learner.teacher_moves = "epoch"
    introduce("toy", config, Prepared(learner=learner, items=ToyItems(7)))
    assert f"The teacher moves after every {items} items." in capsys.readouterr().out


def test_introduce__states_that_will_be_kept_and_their_size(capsys: Capture) -> None:
    config = toy_config(**{"train.epochs": 2, "train.keep_teachers": 10})
    introduce("toy", config, Prepared(learner=ToyLearner(), items=ToyItems(7)))
    assert "10 states will be kept in 'teachers', 0 MiB in all" in capsys.readouterr().out
