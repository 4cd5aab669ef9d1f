"""The loop: accounting, resume, accumulation, and what stops it."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.made_device import made_device
from tests.vision_core.toy import RUNTIME, ToyItems, ToyLearner, toy_config, train
from vision_core.config.schema import Optim
from vision_core.errors import CheckpointError, ConfigError, DataError, Interrupted, TrainingError
from vision_core.runs.folder import RunFolder
from vision_core.training.checkpoint import Counters
from vision_core.training.learner import Learner, Prepared
from vision_core.training.loop import fit
from vision_core.training.optimizers import Trained
from vision_core.training.runtime import Runtime

EVERY = {"train.epochs": 3, "train.save_every": 2, "train.log_every": 1, "optim.lr": 0.05}


def _weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state_dict().items()}


def _assert_same(one: Learner, other: Learner) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def _lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_fit__seven_items_ten_epochs_make_seventy_updates_and_ten_moves(tmp_path: Path) -> None:
    learner, counters = train(tmp_path, toy_config(**{"train.epochs": 10, "train.log_every": 1}))
    assert isinstance(learner, ToyLearner)
    assert (counters.step, counters.updates, learner.moves) == (70, 70, 10)
    assert {line["lr"] for line in _lines(tmp_path)} == {1e-3}


def test_fit__an_empty_step_moves_nothing_and_is_counted(tmp_path: Path) -> None:
    config = toy_config(**{"train.epochs": 1, "optim.weight_decay": 0.1})
    _, counters = train(tmp_path, config, ToyLearner(empty_items=(1, 3, 5)))
    assert (counters.step, counters.updates, counters.empty_steps) == (7, 4, 3)


def test_fit__max_steps_ends_in_mid_epoch(tmp_path: Path) -> None:
    learner, counters = train(tmp_path, toy_config(**{"train.epochs": 9, "train.max_steps": 10}))
    assert isinstance(learner, ToyLearner)
    assert (counters.step, learner.moves) == (10, 1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop_at", [1, 4, 7, 12])
def test_fit__resumed_at_any_step_gives_the_same_bits(tmp_path: Path, stop_at: int, workers: int) -> None:
    config = toy_config(**EVERY)
    whole, _ = train(tmp_path / "whole", config)
    config = toy_config(**EVERY, **{"train.workers": workers})

    class Stopping(ToyLearner):
        def after_step(self, step: int) -> None:
            if step == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=f"step {stop_at} of 21"):
        train(tmp_path / "parts", config, Stopping())
    resumed, counters = train(tmp_path / "parts", config)
    assert counters.step == 21
    _assert_same(whole, resumed)
    assert [line["step"] for line in _lines(tmp_path / "parts")] == list(range(1, 22))


def test_fit__resume_falls_back_to_the_checkpoint_before_a_damaged_one(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", toy_config(**EVERY))
    train(tmp_path / "torn", toy_config(**EVERY))
    (tmp_path / "torn" / "last.pt").write_bytes(b"half a file")
    resumed, _ = train(tmp_path / "torn", toy_config(**EVERY))
    _assert_same(whole, resumed)


def test_fit__all_checkpoints_damaged_is_refused(tmp_path: Path) -> None:
    train(tmp_path, toy_config(**EVERY))
    for name in ("last.pt", "last.prev.pt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        train(tmp_path, toy_config(**EVERY))


def test_fit__resume_with_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path, toy_config(**EVERY))
    with pytest.raises(CheckpointError, match=r"optim\.momentum: 0\.9 then, 0\.5 now"):
        train(tmp_path, toy_config(**EVERY, **{"optim.momentum": 0.5}))


@pytest.mark.parametrize("accumulate", [2, 3])
def test_fit__accumulated_small_batches_equal_one_large(tmp_path: Path, accumulate: int) -> None:
    settings = {"train.epochs": 2, "optim.lr": 0.05}
    small = toy_config(**settings, **{"train.batch_size": 2, "train.accumulate": accumulate})
    large = toy_config(**settings, **{"train.batch_size": 2 * accumulate})

    class Noiseless(ToyLearner):
        def training_step(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss_square": super().training_step(batch)["loss_square"]}

    one, first = train(tmp_path / "small", small, Noiseless(), count=12)
    other, second = train(tmp_path / "large", large, Noiseless(), count=12)
    assert first.updates == second.updates
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], atol=1e-6, rtol=0)


def test_fit__schedules_count_updates_however_many_steps_make_one(tmp_path: Path) -> None:
    rates = []
    for name, size, accumulate in (("small", 2, 3), ("large", 6, 1)):
        sizes = {"train.batch_size": size, "train.accumulate": accumulate, "train.log_every": accumulate}
        schedule = {"optim.schedule": "warmup_cosine", "optim.warmup_steps": 2, "train.epochs": 3}
        train(tmp_path / name, toy_config(**sizes, **schedule), count=12)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        rates.append([json.loads(line)["lr"] for line in lines])
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 6


def test_fit__loss_not_finite_names_step_items_and_terms(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 4 .*loss_noise nan.*number \d.*checkpoint is of step 4"):
        train(tmp_path, toy_config(**EVERY), ToyLearner(poison_step=4))
    assert (tmp_path / "last.pt").exists()


def test_fit__the_host_waits_once_a_step(tmp_path: Path) -> None:
    with made_device() as device:
        prepared = Prepared(learner=ToyLearner(), items=ToyItems(7))
        runtime = Runtime(device=device.device)
        fit(prepared, toy_config(**{"train.epochs": 1, "train.log_every": 1}), runtime, RunFolder(tmp_path))
        assert device.waits == {"copy to the CPU": 7 + 1}
        in_the_loop = sum(count for place, count in device.places.items() if "training/loop.py" in place)
        assert in_the_loop == 7  # the other one: whether all weights are finite, before a checkpoint


def test_fit__bf16_follows_full_precision(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", toy_config(**EVERY))
    half = ToyLearner()
    folder = tmp_path / "half"
    folder.mkdir()
    runtime = Runtime(device=torch.device("cpu"), precision="bf16")
    fit(Prepared(learner=half, items=ToyItems(7)), toy_config(**EVERY), runtime, RunFolder(folder))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(tensor, half.state_dict()[name], atol=0.05, rtol=0.05)


def test_fit__a_last_step_with_fewer_items_can_be_left_out(tmp_path: Path) -> None:
    whole = {"train.epochs": 2, "train.batch_size": 3}
    assert train(tmp_path / "whole", toy_config(**whole))[1].step == 6
    assert train(tmp_path / "dropped", toy_config(**whole, **{"train.drop_last": True}))[1].step == 4


def test_fit__too_few_items_for_a_whole_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"7 items make no step of 8 \(train.batch_size"):
        train(tmp_path, toy_config(**{"train.batch_size": 8, "train.drop_last": True}))


class TwoRates(ToyLearner):
    """The first layer and the rest have optimizers of their own."""

    def trained(self, optim: Optim) -> list[Trained]:
        slow = optim.model_copy(update={"lr": optim.lr / 10, "name": "adam"})
        return [
            Trained(name="first", module=self.first, optim=slow),
            Trained(name="rest", module=self.student[1:], optim=optim),
        ]


def test_fit__parts_have_rates_of_their_own_and_resume_with_them(tmp_path: Path) -> None:
    config = toy_config(**EVERY)
    whole, _ = train(tmp_path / "whole", config, TwoRates())
    assert {(line["lr_first"], line["lr_rest"]) for line in _lines(tmp_path / "whole")} == {(0.005, 0.05)}

    class Stopping(TwoRates):
        def after_step(self, step: int) -> None:
            if step == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path / "parts", config, Stopping())
    resumed, _ = train(tmp_path / "parts", config, TwoRates())
    _assert_same(resumed, whole)


def scored_fit(folder: Path, scores: list[float], *, is_selected: bool = True) -> Counters:
    """Ten epochs with these scores on validation, stopping when two in a row are below the best."""
    config = toy_config(**{"train.epochs": 10, "train.eval_every": 1, "train.patience": 2, "train.patience_from": 1})
    learner = ToyLearner()
    learner.is_selected = is_selected
    folder.mkdir(exist_ok=True)
    prepared = Prepared(learner=learner, items=ToyItems(7))
    return fit(prepared, config, RUNTIME, RunFolder(folder), lambda epoch: {"score": scores[epoch - 1], "other": 0.0})


def test_fit__stops_when_validation_has_not_got_better(tmp_path: Path) -> None:
    scores = [0.5, 0.4, 0.6, 0.5, 0.6, 0.5, 0.4, 0.9, 0.9, 0.9]
    counters = scored_fit(tmp_path, scores)
    assert counters.step == 7 * 7
    assert counters.history == scores[:7]
    assert scored_fit(tmp_path, scores) == counters  # a run that has settled is not gone on with


def test_fit__what_is_not_selected_on_validation_is_not_stopped_by_it(tmp_path: Path) -> None:
    assert scored_fit(tmp_path, [0.5] + [0.1] * 9, is_selected=False).step == 70


class ByEpoch(ToyLearner):
    """Tells when its teacher moves."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher_moves = "epoch"


class ByStep(ToyLearner):
    def __init__(self, empty_items: Sequence[float] = ()) -> None:
        super().__init__(empty_items)
        self.teacher_moves = "step"


@pytest.mark.parametrize(
    ("settings", "moves", "at"),
    [
        ({"train.max_steps": 7}, 1, 7),
        ({"train.max_steps": 10}, 1, 7),
        ({"train.epochs": 3, "train.accumulate": 20}, 3, 21),  # the end of an epoch completes an update
        ({"train.max_steps": 3, "train.batch_size": 3}, 1, 3),
        ({"train.max_steps": 2, "train.batch_size": 3, "train.drop_last": True}, 1, 2),
    ],
)
def test_fit__moves_of_a_teacher_that_moves_per_epoch_are_counted(
    tmp_path: Path, settings: dict[str, object], moves: int, at: int
) -> None:
    learner, counters = train(tmp_path, toy_config(**settings), ByEpoch())
    assert (counters.teacher_moves, counters.teacher_moved_at) == (moves, at)
    assert isinstance(learner, ByEpoch)
    assert learner.moves == moves


def test_fit__a_teacher_that_moves_per_step_moves_with_the_updates(tmp_path: Path) -> None:
    config = toy_config(**{"train.max_steps": 6, "train.accumulate": 2})
    _, counters = train(tmp_path, config, ByStep())
    assert (counters.teacher_moves, counters.teacher_moved_at) == (3, 6)
    _, counters = train(tmp_path / "empty", config, ByStep(empty_items=range(2, 9)))
    assert (counters.teacher_moves, counters.teacher_moved_at) == (1, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"train.max_steps": 6},
        {"train.max_steps": 2, "train.batch_size": 3},
        {"train.max_steps": 6, "train.accumulate": 3},
    ],
)
def test_fit__a_run_shorter_than_an_epoch_whose_teacher_moves_then_is_refused(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    steps = settings["train.max_steps"]
    with pytest.raises(
        ConfigError, match=rf"teacher after '[37]' steps, .* train\.max_steps ends this run after '{steps}'"
    ):
        train(tmp_path, toy_config(**settings), ByEpoch())
    assert not list(tmp_path.iterdir())
    assert train(tmp_path, toy_config(**settings), ByStep())[1].step == steps


def test_fit__a_checkpoint_from_before_the_counts_tells_them_all_the_same(tmp_path: Path) -> None:
    config = toy_config(**EVERY)
    _, whole = train(tmp_path / "whole", config, ByEpoch())
    train(tmp_path, toy_config(**EVERY), ByEpoch())
    state = torch.load(tmp_path / "last.prev.pt", weights_only=True)
    for name in ("teacher_moves", "teacher_moved_at", "bad_losses", "bad_in_a_row"):
        del state["counters"][name]
    del state["notes"]
    torch.save(state, tmp_path / "last.pt")
    (tmp_path / "last.prev.pt").unlink()
    assert train(tmp_path, config, ByEpoch())[1] == whole


def test_fit__notes_outlive_a_stop(tmp_path: Path) -> None:
    class Noting(ToyLearner):
        stop_at = 12

        def after_step(self, step: int) -> None:
            if step == 3:
                self.notes.append("step 3 was strange")
            if step == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path, toy_config(**EVERY), Noting())
    Noting.stop_at = 0
    assert train(tmp_path, toy_config(**EVERY), Noting())[0].notes == ["step 3 was strange"]
