"""Two processes train as one does with the same global batch."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.vision_core.toy import ToyConfig, ToyItems, ToyLearner, toy_config, train
from tests.vision_core.two_processes import run_two
from vision_core.errors import CheckpointError, EnvironmentFault, InputError, Interrupted, TrainingError
from vision_core.runs.folder import RunFolder
from vision_core.training import distributed
from vision_core.training.learner import Prepared
from vision_core.training.loaders import Place
from vision_core.training.loop import fit
from vision_core.training.runtime import Runtime

SETTINGS = {
    "train.epochs": 3,
    "optim.lr": 0.05,
    "optim.weight_decay": 0.01,
    "train.log_every": 1,
    "train.save_every": 2,
}


class Quiet(ToyLearner):
    """Without the noise that each process draws for itself."""

    def training_step(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = super().training_step(batch)
        return {"loss_square": losses["loss_square"]} if losses else {}


class Halting(Quiet):
    """The second process is told to stop in the middle."""

    def after_step(self, step: int) -> None:
        if step == 2 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)


class Dying(Quiet):
    """The second process is killed in the middle."""

    def after_step(self, step: int) -> None:
        if step == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)


class BadInputs(Quiet):
    """Numbers that are not finite in some steps of one process."""

    def __init__(self, steps: Sequence[int]) -> None:
        super().__init__()
        self.bad = steps

    def training_step(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return super().training_step(batch * torch.inf if self.step in self.bad else batch)


class Counting(Quiet):
    """Remembers what each process has seen, the same in all."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.own = torch.zeros(())

    def training_step(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        self.own = batch[:, 0].sum()
        return super().training_step(batch)

    def exchange(self) -> None:
        self.seen = self.seen + distributed.total(self.own)
        self.own = torch.zeros(())


class OneUnreadable(ToyItems):
    """The last number cannot be read; whose turn it is, the order decides."""

    def __getitem__(self, place: Place) -> torch.Tensor:
        if place[1] == self.count - 1:
            raise InputError(f"number {place[1]} is no number. Remove it.")
        return super().__getitem__(place)


class Empty(Quiet):
    """Nothing to learn from small numbers, which one process alone may have in a step."""

    def training_step(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        kept = batch[batch[:, 0] > 0.5]
        return super().training_step(kept) if len(kept) else {}


def fit_in(runtime: Runtime, folder: Path, config: ToyConfig, make: Callable[[], ToyLearner], count: int) -> None:
    learner = make()  # here: tensors that were sent would be shared between the processes
    run = RunFolder(folder, is_written=runtime.is_first)
    counters = fit(Prepared(learner=learner, items=ToyItems(count)), config, runtime, run)
    torch.save({"state": learner.state_dict(), "steps": counters.step}, folder / f"rank-{runtime.rank}.pt")


def stop_in(runtime: Runtime, folder: Path, config: ToyConfig, count: int) -> None:
    try:
        fit_in(runtime, folder, config, Halting, count)
    except Interrupted as told:
        assert "Stopped at step 3" in str(told)
        sys.exit(130)


def poisoned_in(runtime: Runtime, folder: Path, config: ToyConfig) -> None:
    try:
        fit_in(runtime, folder, config, partial(ToyLearner, poison_step=3 if runtime.rank == 1 else -1), 8)
    except TrainingError as told:
        expected = "items of the batch" if runtime.rank == 1 else "loss of another process is not finite"
        assert expected in str(told)
        sys.exit(2)


def skipping_in(runtime: Runtime, folder: Path, config: ToyConfig) -> None:
    bad = (3, 4) if runtime.rank == 1 else ()
    fit_in(runtime, folder, config, partial(BadInputs, bad), 8)


def lonely_in(runtime: Runtime, folder: Path, config: ToyConfig) -> None:
    try:
        fit_in(runtime, folder, config, Dying, 8)
    except EnvironmentFault as told:
        assert "Another process of this training is gone" in str(told)
        sys.exit(told.exit_code)


def unreadable_in(runtime: Runtime, folder: Path, config: ToyConfig) -> None:
    try:
        fit(Prepared(learner=Quiet(), items=OneUnreadable(8)), config, runtime, RunFolder(folder))
    except InputError as told:
        (folder / f"told-{runtime.rank}.txt").write_text(told.lines())
        sys.exit(told.exit_code)


def settings(batch_size: int, **more: object) -> ToyConfig:
    return toy_config(**SETTINGS, **{"train.batch_size": batch_size}, **more)


def states(folder: Path, ranks: Sequence[int] = (0, 1)) -> list[dict[str, torch.Tensor]]:
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True)["state"] for rank in ranks]


def assert_near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-6, atol=1e-6, msg=name)


def test_exchange__every_process_is_asked_in_every_step(tmp_path: Path) -> None:
    assert run_two(fit_in, tmp_path, settings(2), Counting, 5) == [0, 0]  # the second has nothing in a last step
    first, second = states(tmp_path)
    assert torch.equal(first["seen"], second["seen"])
    items = ToyItems(5)
    expected_sum = sum(items[epoch, index][0] for epoch in range(3) for index in range(5))
    torch.testing.assert_close(first["seen"], expected_sum)


def test_fit__one_that_is_killed_ends_the_others_and_the_checkpoint_resumes(tmp_path: Path) -> None:
    """Fault X14."""
    whole, _ = train(tmp_path / "one", settings(4), Quiet(), 8)
    (tmp_path / "two").mkdir()
    assert run_two(lonely_in, tmp_path / "two", settings(2), seconds=60) == [5, -signal.SIGKILL]
    with pytest.raises(CheckpointError, match=r"trained by '2' processes, now there are '1'.*torchrun --nproc-per"):
        train(tmp_path / "two", settings(2), Quiet(), 8)
    assert run_two(fit_in, tmp_path / "two", settings(2), Quiet, 8) == [0, 0]
    assert_near(states(tmp_path / "two")[0], whole.state_dict())


def test_fit__what_one_cannot_read_is_told_by_both(tmp_path: Path) -> None:
    assert run_two(unreadable_in, tmp_path, settings(2)) == [2, 2]
    told = [(tmp_path / f"told-{rank}.txt").read_text() for rank in range(2)]
    assert told == ["error[DATA] number 7 is no number. Remove it."] * 2


@pytest.mark.parametrize("count", [8, 7, 5], ids=["whole steps", "last step of three", "last step of one item"])
def test_fit__two_processes_are_as_one(tmp_path: Path, count: int) -> None:
    whole, _ = train(tmp_path / "one", settings(4), Quiet(), count)
    (tmp_path / "two").mkdir()
    assert run_two(fit_in, tmp_path / "two", settings(2), Quiet, count) == [0, 0]
    first, second = states(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_near(first, whole.state_dict())


def test_fit__a_process_without_a_loss_takes_the_step_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    assert run_two(fit_in, tmp_path / "two", settings(1), Empty, 8) == [0, 0]
    first, second = states(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_fit__one_that_is_told_to_stop_stops_all_and_both_resume_with_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    assert run_two(fit_in, tmp_path / "whole", settings(2), Quiet, 8) == [0, 0]
    assert run_two(stop_in, tmp_path / "parts", settings(2), 8) == [130, 130]
    assert run_two(fit_in, tmp_path / "parts", settings(2), Quiet, 8) == [0, 0]
    for whole, resumed in zip(states(tmp_path / "whole"), states(tmp_path / "parts"), strict=True):
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_fit__a_loss_that_is_not_finite_stops_all(tmp_path: Path) -> None:
    assert run_two(poisoned_in, tmp_path, settings(1)) == [2, 2]


def test_fit__a_loss_that_is_not_finite_is_skipped_by_all(tmp_path: Path) -> None:
    assert run_two(skipping_in, tmp_path, settings(1, **{"train.on_bad_loss": "skip"})) == [0, 0]
    first, second = states(tmp_path)
    assert all(torch.equal(first[name], second[name]) and bool(first[name].isfinite().all()) for name in first)
    counters = torch.load(tmp_path / "last.pt", weights_only=True)["counters"]
    assert (counters["step"], counters["updates"], counters["bad_losses"]) == (12, 10, 2)
