import pytest

from vision_core.schedules import constant, cosine, learning_rate, warmup, warmup_cosine, warmup_multistep
from vision_core.settings import Optim


def test_constant__is_one() -> None:
    assert {constant(step, 10) for step in range(11)} == {1.0}


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (2, 0.853553), (4, 0.5), (6, 0.146447), (8, 0.0), (9, 0.0)])
def test_cosine__half_a_wave_over_eight_steps(step: int, factor: float) -> None:
    assert cosine(step, 8) == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.001), (1, 0.25075), (2, 0.5005), (3, 0.75025), (4, 1.0), (9, 1.0)])
def test_warmup__linear_from_a_thousandth(step: int, factor: float) -> None:
    assert warmup(step, 4) == pytest.approx(factor)


def test_warmup__of_no_steps_is_one() -> None:
    assert warmup(0, 0) == 1


@pytest.mark.parametrize(("step", "factor"), [(0, 0.001), (1, 0.5005), (2, 1.0), (4, 0.5), (6, 0.0)])
def test_warmup_cosine__rises_then_falls_to_zero(step: int, factor: float) -> None:
    assert warmup_cosine(step, total=6, warmup_steps=2) == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize("total", range(1, 8))
def test_warmup_cosine__run_shorter_than_its_warm_up_only_rises(total: int) -> None:
    rates = [warmup_cosine(step, total, warmup_steps=8) for step in range(total)]
    assert rates == [warmup(step, 8) for step in range(total)]


@pytest.mark.parametrize(("step", "factor"), [(0, 0.001), (1, 0.5005), (2, 1.0), (4, 0.1), (5, 0.1), (6, 0.01)])
def test_warmup_multistep__a_tenth_from_each_milestone_on(step: int, factor: float) -> None:
    assert warmup_multistep(step, warmup_steps=2, milestones=(4, 6)) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("schedule", "rate"),
    [("constant", 0.2), ("cosine", 0.1), ("warmup_cosine", 0.12222), ("warmup_multistep", 0.02)],
)
def test_learning_rate__base_times_the_schedule(schedule: str, rate: float) -> None:
    optim = Optim.model_validate({"lr": 0.2, "schedule": schedule, "warmup_steps": 1, "milestones": (5,)})
    expected = 0.2 * warmup_cosine(5, 10, 1) if schedule == "warmup_cosine" else rate
    assert learning_rate(optim, 5, 10) == pytest.approx(expected)
