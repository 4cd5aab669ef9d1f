"""States that a run keeps: which steps, and that neither a stop nor a kill loses or changes one."""

import hashlib
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.forked import forked
from tests.vision_core.toy import RUNTIME, ToyItems, ToyLearner, toy_config, train
from vision_core.errors import CheckpointError, Interrupted
from vision_core.runs.folder import RunFolder
from vision_core.runs.kept_teachers import KeptTeachers, kept_steps, list_kept, load_kept, size_of
from vision_core.training.learner import Prepared
from vision_core.training.loop import fit

KEEPING = {"train.epochs": 3, "train.save_every": 2, "train.keep_teachers": 6, "optim.lr": 0.05}
STEPS = (4, 7, 11, 14, 18, 21)  # of 21


class Ending(ToyLearner):
    """Sends its own process a signal after a step."""

    def __init__(self, at: int, number: signal.Signals) -> None:
        super().__init__()
        self.at, self.number = at, number

    def after_step(self, step: int) -> None:
        if step == self.at:
            os.kill(os.getpid(), self.number)


def killed_at(step: int, folder: Path) -> None:
    train(folder, toy_config(**KEEPING), Ending(step, signal.SIGKILL))


def contents(folder: Path) -> dict[int, bytes]:
    return {step: path.read_bytes() for step, path in list_kept(folder).items()}


@pytest.mark.parametrize(
    ("total", "count", "steps"),
    [(90, 10, tuple(range(9, 91, 9))), (7, 3, (3, 5, 7)), (2, 10, (1, 2)), (21, 6, STEPS), (5, None, ())],
)
def test_kept_steps__are_evenly_spaced_and_end_with_the_run(
    total: int, count: int | None, steps: tuple[int, ...]
) -> None:
    assert kept_steps(total, count) == steps


def test_fit__keeps_what_it_would_deliver_in_half_precision(tmp_path: Path) -> None:
    learner, _ = train(tmp_path, toy_config(**KEEPING))
    kept = list_kept(tmp_path)
    assert tuple(kept) == STEPS
    last = learner.product().state_dict()
    for name, tensor in load_kept(kept[21]).items():
        assert torch.equal(tensor, last[name].half().float())
    # Nothing is learnt from them, and without the setting there are none.
    plain, _ = train(tmp_path / "plain", toy_config(**KEEPING | {"train.keep_teachers": None}))
    assert all(torch.equal(each, plain.state_dict()[name]) for name, each in learner.state_dict().items())
    assert not (tmp_path / "plain" / "teachers").exists()


@pytest.mark.parametrize("step", [5, 12, 19])
def test_fit__stopped_and_resumed_keeps_the_same_bytes(tmp_path: Path, step: int) -> None:
    train(tmp_path / "whole", toy_config(**KEEPING))
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", toy_config(**KEEPING), Ending(step, signal.SIGTERM))
    assert list(contents(tmp_path / "parts")) == [each for each in STEPS if each <= step]
    train(tmp_path / "parts", toy_config(**KEEPING))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("step", [8, 15])
def test_fit__killed_and_resumed_keeps_the_same_bytes(tmp_path: Path, step: int) -> None:
    """The kill comes after a state and before the checkpoint of its step, which is that of the step before."""
    train(tmp_path / "whole", toy_config(**KEEPING))
    child = forked(partial(killed_at, step), tmp_path / "parts")
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    before = contents(tmp_path / "parts")
    assert before
    assert before.items() <= contents(tmp_path / "whole").items()
    train(tmp_path / "parts", toy_config(**KEEPING))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_fit__other_processes_write_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, is_written=False)
    fit(Prepared(learner=ToyLearner(), items=ToyItems(7)), toy_config(**KEEPING), RUNTIME, run)
    assert not list_kept(tmp_path)


def test_forget_after__removes_later_states_and_what_was_half_written(tmp_path: Path) -> None:
    train(tmp_path, toy_config(**KEEPING))
    host = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]
    half = tmp_path / "teachers" / f".partial-{os.getpid()}-{host}-00000000.safetensors"
    half.write_bytes(b"half a file")
    KeptTeachers(RunFolder(tmp_path), 21, 6).forget_after(11)
    assert tuple(list_kept(tmp_path)) == (4, 7, 11)
    assert not half.exists()


def test_keep__numbers_beyond_half_precision_stay(tmp_path: Path) -> None:
    norm = nn.BatchNorm1d(2)
    assert norm.running_var is not None
    norm.running_var += 1e5
    KeptTeachers(RunFolder(tmp_path), 1, 1).keep(1, lambda: norm)
    kept = load_kept(list_kept(tmp_path)[1])
    assert torch.equal(kept["running_var"], norm.running_var)
    assert kept["num_batches_tracked"].dtype == torch.int64
    assert size_of(norm, 1, 1) == 4 * 2 * 2 + 8


def test_load_kept__a_damaged_one_is_named(tmp_path: Path) -> None:
    train(tmp_path, toy_config(**KEEPING))
    path = list_kept(tmp_path)[4]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="step-000000004"):
        load_kept(path)


def test_overwrite__removes_them(tmp_path: Path) -> None:
    train(tmp_path, toy_config(**KEEPING))
    RunFolder(tmp_path).describe(status="done")
    RunFolder(tmp_path).open(resume=False, overwrite=True)
    assert not (tmp_path / "teachers").exists()


def test_fit__a_run_without_the_setting_of_before_is_continued(tmp_path: Path) -> None:
    """A checkpoint of older code does not know the setting."""
    config = toy_config(**KEEPING | {"train.keep_teachers": None})
    with pytest.raises(Interrupted):
        train(tmp_path, config, Ending(5, signal.SIGTERM))
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    del state["config"]["train"]["keep_teachers"]
    torch.save(state, tmp_path / "last.pt")
    _, counters = train(tmp_path, config)
    assert counters.step == 21
