"""Both objectives against checks N2, N3 and N15, and the two faults of the released one."""

from math import log
from typing import Literal

import pytest
import torch
from torch import Tensor

from pipelines.pretrain.config import Reinforce
from pipelines.pretrain.noise_mask.beta import BetaCells
from pipelines.pretrain.noise_mask.objectives import (
    CostBaseline,
    advantages,
    image_costs,
    leave_one_out,
    mean_log_total_density,
    reinforce_losses,
    released_losses,
)
from tests.pipelines.pretrain.example import LOGITS, TARGETS, beta_cells, close, leaf, sampled

SUM = Reinforce(per_cell=False)

COSTS = torch.tensor([2.407606, 0.306356], dtype=torch.float64)


def _costs(logits: Tensor) -> Tensor:
    return image_costs(logits, torch.tensor(TARGETS))


def _released(logits: Tensor, cells: BetaCells, *, scale_classifier: bool = True) -> dict[str, Tensor]:
    density = mean_log_total_density(cells.log_density(sampled()))
    return released_losses(_costs(logits).mean(), density, scale_classifier=scale_classifier)


def _reinforce(costs: Tensor, expected: Tensor, settings: Reinforce) -> tuple[dict[str, Tensor], BetaCells]:
    cells = beta_cells()
    log_densities = cells.log_density(sampled())
    return reinforce_losses(costs, cells, log_densities, advantages(costs, expected), settings), cells


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def test_image_costs__by_hand() -> None:
    close(_costs(leaf(LOGITS)), [2.407606, 0.306356])


def test_image_costs__label_smoothing_acts_on_labels_and_probabilities() -> None:
    logits, targets = leaf(LOGITS), torch.tensor(TARGETS)
    smoothed = image_costs(logits, targets, label_smoothing=0.3)
    by_hand = 0.7 * _costs(logits) + 0.3 * -logits.log_softmax(dim=1).mean(dim=1)
    torch.testing.assert_close(smoothed, by_hand)
    probabilities = torch.nn.functional.one_hot(targets, 3).double()
    torch.testing.assert_close(image_costs(logits, probabilities, 0.3), smoothed)


def test_log_total_density__by_hand_and_without_overflow() -> None:
    log_densities = beta_cells().log_density(sampled())
    close(mean_log_total_density(log_densities[:1]), 1.865760)
    close(mean_log_total_density(log_densities), 1.718490)
    close(mean_log_total_density(torch.full((2, 4), 200.0)), 200 + log(4))


def test_released__value_and_gradients() -> None:
    logits, cells = leaf(LOGITS), beta_cells()
    loss = torch.stack(list(_released(logits, cells).values())).sum()
    loss.backward()
    close(loss.detach(), 2.331958)
    close(
        _gradient(cells.log_alpha),
        [[-0.023373, 0.019614, -0.071380, 0.086963], [-0.039372, 0.100690, 0.087016, 0.074862]],
    )
    close(
        _gradient(cells.log_beta), [[0.078406, 0.054011, 0.124927, 0.024957], [0.081624, 0.005565, 0.025666, 0.029043]]
    )
    close(_gradient(logits), [[0.571605, 0.210282, -0.781887], [0.141132, -0.226734, 0.085601]])


def test_released__is_the_product_of_the_two_means() -> None:
    (logits, cells), (same_logits, same_cells) = ((leaf(LOGITS), beta_cells()) for _ in range(2))
    torch.stack(list(_released(logits, cells).values())).sum().backward()
    density = same_cells.log_density(sampled()).exp().sum(dim=1).log().mean()
    (density * _costs(same_logits).mean()).backward()
    torch.testing.assert_close(_gradient(logits), _gradient(same_logits))
    torch.testing.assert_close(_gradient(cells.log_beta), _gradient(same_cells.log_beta))


def test_released__control_leaves_the_classifier_gradient_unscaled() -> None:
    logits, cells, scaled_cells = leaf(LOGITS), beta_cells(), beta_cells()
    torch.stack(list(_released(logits, cells, scale_classifier=False).values())).sum().backward()
    _released(leaf(LOGITS), scaled_cells)["loss_policy"].backward()
    close(_gradient(logits), [[0.332620, 0.122364, -0.454985], [0.082126, -0.131938, 0.049812]])
    assert torch.equal(_gradient(cells.log_alpha), _gradient(scaled_cells.log_alpha))


def test_released__two_processes_equal_one() -> None:
    logits, cells = leaf(LOGITS), beta_cells()
    costs, log_densities = _costs(logits), cells.log_density(sampled())
    everywhere = costs.mean(), mean_log_total_density(log_densities)
    for rank in range(2):
        mine = costs[[rank]].mean(), mean_log_total_density(log_densities[[rank]])
        torch.stack(list(released_losses(*mine, everywhere).values())).sum().div(2).backward(retain_graph=True)
    one_logits, one_cells = leaf(LOGITS), beta_cells()
    torch.stack(list(_released(one_logits, one_cells).values())).sum().backward()
    torch.testing.assert_close(_gradient(logits), _gradient(one_logits))
    torch.testing.assert_close(_gradient(cells.log_alpha), _gradient(one_cells.log_alpha))


def test_reinforce__value_and_gradients_with_the_batch_mean() -> None:
    costs = _costs(leaf(LOGITS)).detach()
    losses, cells = _reinforce(costs, costs.mean(), SUM)
    losses["loss_policy"].backward()
    close(losses["loss_policy"].detach(), 0.611323)
    close(losses["loss_classifier"], 1.356981)
    close(
        _gradient(cells.log_alpha),
        [[-0.095786, 0.082890, -0.178858, 0.211144], [0.194775, -0.289951, -0.220640, -0.215242]],
    )
    close(
        _gradient(cells.log_beta),
        [[0.321318, 0.228255, 0.313031, 0.060595], [-0.403798, -0.016025, -0.065079, -0.083504]],
    )


@pytest.mark.parametrize(
    ("expected", "settings", "value"),
    [
        ([1.356981, 1.356981], Reinforce(), 0.152831),
        ([0.306356, 2.407606], SUM, 1.222646),
        ([0.0, 0.0], SUM, 2.240017),
        ([1.5, 1.5], SUM, 0.439666),
    ],
    ids=["per_cell", "leave_one_out", "none", "ema"],
)
def test_reinforce__reductions_and_baselines(expected: list[float], settings: Reinforce, value: float) -> None:
    losses, _ = _reinforce(_costs(leaf(LOGITS)).detach(), torch.tensor(expected).double(), settings)
    close(losses["loss_policy"].detach(), value)


def test_reinforce__entropy_bonus_is_the_mean_over_images_and_cells() -> None:
    costs = torch.ones(2).double()
    losses, cells = _reinforce(costs, costs, Reinforce(entropy_weight=2.0))
    torch.testing.assert_close(losses["loss_policy"], -2 * cells.entropy().mean())


def test_reinforce__each_loss_reaches_one_network_alone() -> None:
    logits = leaf(LOGITS)
    costs = _costs(logits)
    losses, cells = _reinforce(costs, costs.mean(), SUM)
    losses["loss_policy"].backward()
    assert logits.grad is None
    policy_gradient = _gradient(cells.log_alpha).clone()
    losses["loss_classifier"].backward()
    assert torch.equal(_gradient(cells.log_alpha), policy_gradient)
    assert _gradient(logits).any()


def test_score__joint_likelihood_is_unbiased_and_the_released_sum_drifts() -> None:
    shape = 20_000, 64
    cells = BetaCells(log_alpha=torch.full(shape, log(1.6)).requires_grad_(), log_beta=torch.full(shape, log(1.6)))
    log_densities = cells.log_density(_draw(shape))
    (joint,) = torch.autograd.grad(log_densities.sum(), cells.log_alpha, retain_graph=True)
    (released,) = torch.autograd.grad(log_densities.logsumexp(dim=1).sum(), cells.log_alpha)
    assert joint.mean().item() == pytest.approx(0, abs=0.004)
    assert released.sum(dim=1).mean().item() == pytest.approx(0.084, abs=0.005)


def _draw(shape: tuple[int, int]) -> Tensor:
    concentration = torch.full(shape, 1.6)
    return torch.distributions.Beta(concentration, concentration).sample()


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
