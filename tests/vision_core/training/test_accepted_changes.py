"""A run that goes on with other settings: which, and from when on."""

import json
from pathlib import Path

import pytest
import torch

from tests.vision_core.toy import RUNTIME, ToyItems, ToyLearner, toy_config, train
from vision_core.errors import CheckpointError
from vision_core.runs.folder import RunFolder
from vision_core.training.checkpoint import Counters
from vision_core.training.learner import Prepared
from vision_core.training.loop import _Loop, fit, refuse_other_start

EVERY = {"train.epochs": 3, "train.save_every": 2, "train.log_every": 1, "optim.lr": 0.05}


def _lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def go_on(folder: Path, *, accepts: bool, **changes: object) -> Counters:
    prepared = Prepared(learner=ToyLearner(), items=ToyItems(7))
    run = RunFolder(folder, accepts_changes=accepts)
    config = toy_config(**{**EVERY, **changes})
    refuse_other_start(prepared, config, run)
    return fit(prepared, config, RUNTIME, run)


def test_fit__accepted_changes_are_those_of_the_run_from_then_on(tmp_path: Path) -> None:
    train(tmp_path, toy_config(**EVERY))
    changes = {
        "optim.lr": 0.01,
        "optim.clip_norm": 5.0,
        "train.epochs": 4,
        "data.root": "/moved",
        "optim.weight_decay": 0,
    }
    with pytest.raises(CheckpointError, match=r"optim\.lr: 0\.05 then, 0\.01 now.*add --accept-changes"):
        go_on(tmp_path, accepts=False, **changes)
    assert go_on(tmp_path, accepts=True, **changes).step == 28
    rates = [line["lr"] for line in _lines(tmp_path)]
    assert rates == [0.05] * 21 + [0.01] * 7
    assert go_on(tmp_path, accepts=False, **changes).step == 28  # the checkpoint is of the new settings
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert {group["weight_decay"] for group in state["optimizers"][""]["param_groups"]} == {0.0}


def test_fit__changes_are_those_of_the_checkpoint_at_once(tmp_path: Path) -> None:
    """A kill before the first step of the second part costs no second consent."""
    train(tmp_path, toy_config(**EVERY))
    run = RunFolder(tmp_path, accepts_changes=True)
    config = toy_config(**EVERY, **{"optim.schedule": "cosine"})
    _Loop(Prepared(learner=ToyLearner(), items=ToyItems(7)), config, RUNTIME, run).resume()
    assert go_on(tmp_path, accepts=False, **{"optim.schedule": "cosine"}).step == 21


@pytest.mark.parametrize("key", ["optim.momentum", "train.batch_size", "train.seed", "train.accumulate"])
def test_fit__what_the_steps_done_depend_on_cannot_be_changed(tmp_path: Path, key: str) -> None:
    train(tmp_path, toy_config(**EVERY))
    value = {"optim.momentum": 0.5}.get(key, 2)
    with pytest.raises(
        CheckpointError, match=rf"other settings \({key}: \S+ then, {value} now\)\. Resume with the same, or"
    ):
        go_on(tmp_path, accepts=True, **{key: value, "optim.lr": 0.01})
