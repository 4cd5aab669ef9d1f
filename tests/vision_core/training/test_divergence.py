"""Losses, gradients and weights that are not finite: what stops, what is skipped, what is saved and what is read."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.vision_core.toy import RUNTIME, ToyItems, ToyLearner, toy_config, train
from vision_core.errors import Interrupted, TrainingError
from vision_core.runs.folder import RunFolder
from vision_core.training.checkpoint import Counters
from vision_core.training.learner import Learner, Prepared
from vision_core.training.loop import _Loop, fit
from vision_core.training.runtime import Runtime

EVERY = {"train.epochs": 3, "train.save_every": 2, "train.log_every": 1, "optim.lr": 0.05}


def _weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state_dict().items()}


def _assert_same(one: Learner, other: Learner) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


class Poisoned(ToyLearner):
    """Normalises over the batch; some steps hold numbers that are not finite, or whose gradient is none."""

    def __init__(self, bad_inputs: Sequence[int] = (), bad_gradients: Sequence[int] = ()) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.bad_inputs, self.bad_gradients = bad_inputs, bad_gradients
        self.discarded: list[int] = []
        self.unknown: torch.Tensor
        self.register_buffer("unknown", torch.full((2,), torch.nan))  # as a record of epochs to come

    def training_step(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.step in self.bad_inputs:
            batch = batch * torch.inf
        losses = super().training_step(torch.cat([self.norm(batch[:, :1]), batch[:, 1:]], dim=1))
        if self.step in self.bad_gradients:
            losses["loss_root"] = (0.0 * self.first.weight).sum().sqrt()  # 0, with a gradient of 0 times infinity
        return losses

    def discard(self) -> None:
        self.discarded.append(self.step)


PAIRS = {**EVERY, "train.batch_size": 2, "train.drop_last": True}  # nine steps


def test_fit__a_loss_that_is_not_finite_is_skipped_on_request_and_leaves_nothing(tmp_path: Path) -> None:
    config = toy_config(**PAIRS, **{"train.on_bad_loss": "skip"})
    learner, counters = train(tmp_path, config, Poisoned(bad_inputs=(4, 5)))
    assert isinstance(learner, Poisoned)
    assert (counters.step, counters.updates, counters.bad_losses, counters.empty_steps) == (9, 7, 2, 0)
    assert learner.discarded == [4, 5]
    assert learner.norm.num_batches_tracked == 7
    found = {name: entry for name, entry in learner.state_dict().items() if name != "unknown"}
    assert all(bool(entry.isfinite().all()) for entry in found.values())

    class Stopping(Poisoned):
        def after_step(self, step: int) -> None:
            if step == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path / "parts", config, Stopping(bad_inputs=(4, 5)))
    resumed, again = train(tmp_path / "parts", config, Poisoned(bad_inputs=(4, 5)))
    assert again == counters
    assert all(torch.equal(entry, resumed.state_dict()[name]) for name, entry in found.items())


def test_fit__ten_skipped_losses_in_a_row_end_the_run(tmp_path: Path) -> None:
    config = toy_config(**EVERY, **{"train.on_bad_loss": "skip"})
    bad = [2, *range(4, 30)]
    with pytest.raises(
        TrainingError, match=r"^10 steps in a row .* step 13 .*number \d.*The last checkpoint is of step 12"
    ):
        train(tmp_path, config, ToyLearner(poison_steps=bad))


def test_fit__weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The loss was finite, its gradient was not."""
    config = toy_config(**PAIRS)
    with pytest.raises(TrainingError, match=r"After step 6 .*first 'first\.weight'; no checkpoint .* is of step 4"):
        train(tmp_path, config, Poisoned(bad_gradients=(5,)))
    whole, _ = train(tmp_path / "whole", config, Poisoned())
    resumed, counters = train(tmp_path, config, Poisoned())
    assert counters.step == 9
    for name, entry in whole.state_dict().items():
        assert torch.equal(entry, resumed.state_dict()[name]) or name == "unknown"


def test_fit__the_end_of_a_run_is_not_saved_either(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"After step 9 .* is of step 8"):
        train(tmp_path, toy_config(**PAIRS), Poisoned(bad_gradients=(8,)))


def test_fit__resume_goes_on_from_before_a_checkpoint_that_is_not_finite(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy_config(**EVERY)
    whole, _ = train(tmp_path / "whole", config)
    train(tmp_path / "run", config)
    last = tmp_path / "run" / "last.pt"
    state = torch.load(last, weights_only=True)
    state["learner"]["first.weight"][2] = torch.nan
    torch.save(state, last)
    resumed, _ = train(tmp_path / "run", config)
    _assert_same(whole, resumed)
    assert (
        "last.pt holds 1 entries that are not finite, first 'first.weight'. Going on from last.prev.pt" in caplog.text
    )


def test_fit__an_unsound_checkpoint_never_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    config = toy_config(**EVERY)
    train(tmp_path, config)
    (tmp_path / "last.pt").write_bytes(b"half a file")
    loop = _Loop(Prepared(learner=ToyLearner(), items=ToyItems(7)), config, RUNTIME, RunFolder(tmp_path))
    loop.resume()
    assert torch.load(tmp_path / "last.pt", weights_only=True)["counters"]["step"] == 20
    assert not (tmp_path / "last.prev.pt").exists()


def fit_fp16(folder: Path, learner: Learner, **settings: object) -> Counters:
    folder.mkdir(exist_ok=True)
    runtime = Runtime(device=torch.device("cpu"), precision="fp16")
    prepared = Prepared(learner=learner, items=ToyItems(7))
    return fit(prepared, toy_config(**{**EVERY, **settings}), runtime, RunFolder(folder))


class Steep(Poisoned):
    """Small gradients, which fp16 holds, apart from those of some steps."""

    def training_step(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = ToyLearner.training_step(self, batch)
        return {name: loss * (1e30 if self.step in self.bad_gradients else 1e-3) for name, loss in losses.items()}


def test_fit__gradients_are_clipped_after_they_are_unscaled(tmp_path: Path) -> None:
    """Clipped before, an update would be a 65,536th of this one."""
    learner = Steep()
    before = _weights(learner)
    settings = {"train.max_steps": 1, "optim.lr": 100.0, "optim.clip_norm": 1e-5, "optim.weight_decay": 0}
    fit_fp16(tmp_path, learner, **settings)
    moved = [learner.state_dict()[name] - before[name] for name, _ in learner.named_parameters()]
    assert torch.cat([each.flatten() for each in moved]).norm().item() == pytest.approx(1e-3, rel=0.02)


def test_fit__an_update_beyond_fp16_is_discarded(tmp_path: Path) -> None:
    learner = Steep(bad_gradients=(2,))
    counters = fit_fp16(tmp_path, learner)
    assert learner.discarded == [2]
    assert (counters.updates, counters.skipped_updates) == (20, 1)
