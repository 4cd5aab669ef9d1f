import pytest

from vision_core.config.schema import Optim
from vision_core.training.schedules import cosine, learning_rate, multistep, should_stop, stale_epochs, warmup

HISTORY = (0.80, 0.85, 0.84, 0.85, 0.83, 0.82, 0.81)


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (2, 0.853553), (4, 0.5), (6, 0.146447), (8, 0.0), (9, 0.0)])
def test_cosine__half_a_wave_over_eight_steps(step: int, factor: float) -> None:
    assert cosine(step, 8) == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.001), (1, 0.25075), (2, 0.5005), (3, 0.75025), (4, 1.0), (9, 1.0)])
def test_warmup__linear_from_a_thousandth(step: int, factor: float) -> None:
    assert warmup(step, 4) == pytest.approx(factor)


def test_warmup__of_no_steps_is_one() -> None:
    assert warmup(0, 0) == 1


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (3, 1.0), (4, 0.1), (5, 0.1), (6, 0.01)])
def test_multistep__a_tenth_from_each_milestone_on(step: int, factor: float) -> None:
    assert multistep(step, milestones=(4, 6)) == pytest.approx(factor)


def rates(total: int, per_epoch: int = 1, **settings: object) -> list[float]:
    optim = Optim.model_validate({"lr": 0.2, **settings})
    return [learning_rate(optim, step, total, per_epoch) for step in range(total)]


def test_learning_rate__constant() -> None:
    assert rates(3, warmup_steps=9, milestones=(1,)) == [0.2, 0.2, 0.2]


def test_learning_rate__cosine_to_an_end_that_is_never_reached() -> None:
    assert rates(4, schedule="cosine", lr_end=0.1) == pytest.approx([0.2, 0.185355, 0.15, 0.114645], abs=1e-6)


def test_learning_rate__warm_up_then_cosine() -> None:
    expected = [0.0002, 0.1001, 0.2, 0.1707107, 0.1, 0.0292893]
    assert rates(6, schedule="warmup_cosine", warmup_steps=2) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("total", range(1, 8))
def test_learning_rate__run_shorter_than_its_warm_up_only_rises(total: int) -> None:
    assert rates(total, schedule="warmup_cosine", warmup_steps=8) == [0.2 * warmup(step, 8) for step in range(total)]


def test_learning_rate__warm_up_then_a_tenth_from_each_milestone_on() -> None:
    found = rates(7, schedule="warmup_multistep", warmup_steps=2, milestones=(4, 6))
    assert found == pytest.approx([0.0002, 0.1001, 0.2, 0.2, 0.02, 0.02, 0.002])


def test_learning_rate__by_epoch_moves_between_epochs_alone() -> None:
    found = rates(7, per_epoch=3, schedule="cosine", schedule_by="epoch")
    by_epoch = rates(3, schedule="cosine")
    assert found == [by_epoch[epoch] for epoch in (0, 0, 0, 1, 1, 1, 2)]


def test_learning_rate__warm_up_of_epochs_from_a_hundredth() -> None:
    found = rates(9, schedule="warmup_multistep", schedule_by="epoch", warmup_steps=7, warmup_start=0.01)
    assert found[:2] == pytest.approx([0.002, 0.2 * (0.01 + 0.99 / 7)])
    assert found[7:] == [0.2, 0.2]


def test_should_stop__patience_and_earliest_epoch() -> None:
    so_far = [HISTORY[: epoch + 1] for epoch in range(len(HISTORY))]
    assert [stale_epochs(scores) for scores in so_far] == [0, 0, 1, 0, 1, 2, 3]
    assert [should_stop(scores, patience=3, earliest=4) for scores in so_far] == [False] * 6 + [True]
    assert not should_stop(HISTORY, patience=3, earliest=6)


def test_should_stop__published_trace_where_a_tie_is_no_improvement() -> None:
    """Validation Dice at epochs 5, 10, …: the best is that of epoch 25, and training stops after epoch 50."""
    scores = [0.40, 0.45, 0.45, 0.44, 0.46, 0.46, 0.46, 0.46, 0.46, 0.46]
    stops = [should_stop(scores[:count], 5, 0, ties_are_stale=True) for count in range(1, len(scores) + 1)]
    assert stops == [False] * 9 + [True]
    assert not should_stop(scores, 5, 0)


def test_stale_epochs__before_the_first() -> None:
    assert stale_epochs([]) == 0 == stale_epochs([], ties_are_stale=True)
