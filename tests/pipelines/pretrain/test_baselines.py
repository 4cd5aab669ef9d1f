"""Rewards and baselines against check N3."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from pipelines.pretrain.baselines import CostBaseline, advantages, leave_one_out
from pipelines.pretrain.config import Reinforce
from tests.pipelines.pretrain.example import close

COSTS = torch.tensor([2.407606, 0.306356], dtype=torch.float64)


def _advantages(baseline: Literal["none", "batch_mean", "leave_one_out", "ema"]) -> Tensor:
    return advantages(COSTS, CostBaseline(Reinforce(baseline=baseline)).double()(COSTS))


def test_advantages__by_hand() -> None:
    close(_advantages("none"), [-2.407606, -0.306356])
    close(_advantages("batch_mean"), [-1.050625, 1.050625])
    close(_advantages("leave_one_out"), [-2.101250, 2.101250])


def test_advantages__first_ema_baseline_is_the_batch_mean() -> None:
    close(_advantages("ema"), [-1.050625, 1.050625])


def test_ema__moves_after_its_use_and_is_in_the_checkpoint() -> None:
    baseline = CostBaseline(Reinforce(baseline="ema")).double()
    baseline.update(torch.tensor([1.0, 2.0]).double())
    close(baseline.average, 1.5)
    close(baseline(COSTS), [1.5, 1.5])
    baseline.update(COSTS)
    close(baseline.average, 1.485698)
    resumed = CostBaseline(Reinforce(baseline="ema")).double()
    resumed.load_state_dict(baseline.state_dict())
    assert torch.equal(resumed(COSTS), baseline(COSTS))


def test_leave_one_out__own_cost_is_not_in_it() -> None:
    expected = leave_one_out(torch.tensor([1.0, 2.0, 6.0]))
    close(expected, [4.0, 3.5, 1.5])


def test_advantages__normalised_to_unit_spread_and_equal_costs_are_finite() -> None:
    close(advantages(COSTS, COSTS.mean(), normalise=True), [-1.0, 1.0])
    same = torch.ones(3)
    assert torch.equal(advantages(same, same, normalise=True), torch.zeros(3))


@pytest.mark.parametrize("kind", ["none", "batch_mean", "leave_one_out", "ema"])
def test_advantages__are_constants(kind: Literal["none", "batch_mean", "leave_one_out", "ema"]) -> None:
    costs = COSTS.clone().requires_grad_()
    baseline = CostBaseline(Reinforce(baseline=kind))
    assert not advantages(costs, baseline(costs)).requires_grad
    baseline.update(costs)
    assert not baseline.average.requires_grad
