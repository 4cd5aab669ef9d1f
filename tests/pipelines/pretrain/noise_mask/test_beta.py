"""The cells' distributions against checks N1 and N13."""

from math import log, sqrt

import pytest
import torch
from torch import Tensor

from pipelines.pretrain.noise_mask.beta import BetaCells, num_at_border, unlearned_cells
from tests.pipelines.pretrain.example import beta_cells, close, sampled


def _constant(value: float, shape: tuple[int, int]) -> BetaCells:
    return BetaCells(log_alpha=torch.full(shape, value), log_beta=torch.full(shape, value))


def test_log_density__by_hand() -> None:
    log_densities = beta_cells().log_density(sampled())
    close(log_densities, [[0.199352, 0.168617, 0.691310, 0.722821], [-0.283451, 0.257679, 0.384907, 0.259233]])
    close(log_densities.sum(dim=1), [1.782100, 0.618368])


def test_mean_and_entropy__by_hand() -> None:
    cells = beta_cells()
    close(cells.mean(), [[0.425557, 0.622459, 0.289050, 0.768525], [0.645656, 0.289050, 0.645656, 0.475021]])
    close(cells.entropy(), [[-0.040818, -0.106531, -0.303330, -0.494286], [-0.161816, -0.298930, -0.161675, -0.061604]])


@pytest.mark.parametrize("value", [-30.0, 30.0])
def test_clamped__density_at_the_borders_is_finite(value: float) -> None:
    cells = _constant(value, (1, 4))
    samples = torch.tensor([[0.0, 1.0, 0.5, 1e-30]])
    assert cells.num_out_of_range().item() == 8
    assert cells.clamped().num_out_of_range().item() == 0
    assert num_at_border(samples).item() == 3
    assert cells.clamped().log_density(samples).isfinite().all()


def test_clamped__inside_nothing_changes() -> None:
    cells = beta_cells()
    assert torch.equal(cells.clamped().log_alpha, cells.log_alpha)
    assert torch.equal(cells.clamped().log_beta, cells.log_beta)
    assert cells.num_out_of_range().item() == 0


def test_sample__each_image_follows_from_its_own_seed() -> None:
    cells = BetaCells(log_alpha=torch.rand(3, 16), log_beta=torch.rand(3, 16))
    whole = cells.sample([7, 8, 9])
    last = BetaCells(log_alpha=cells.log_alpha[2:], log_beta=cells.log_beta[2:]).sample([9])
    assert torch.equal(whole[2:], last)
    assert not torch.equal(whole, cells.sample([7, 8, 10]))


def test_sample__random_state_and_graph_are_left_alone() -> None:
    before = torch.get_rng_state()
    samples = beta_cells().sample([1, 2])
    assert torch.equal(torch.get_rng_state(), before)
    assert not samples.requires_grad


def test_sample__a_seed_is_needed_for_each_image() -> None:
    with pytest.raises(ValueError, match="shorter"):
        beta_cells().sample([1])


def test_sample__statistics_at_grid_64() -> None:
    log_densities = _log_densities(_constant(log(1.6), (200, 4096)))
    assert log_densities.logsumexp(dim=1).mean().item() == pytest.approx(8.417, rel=0.02)
    assert log_densities.sum(dim=1).mean().item() == pytest.approx(258, rel=0.02)
    assert sqrt(4096) * log_densities.std().item() == pytest.approx(_joint_deviation(1.6, 4096), rel=0.02)


def test_sample__statistics_at_the_start() -> None:
    cells = BetaCells(log_alpha=0.9 * torch.rand(100, 4096), log_beta=0.9 * torch.rand(100, 4096))
    assert _log_densities(cells).logsumexp(dim=1).mean().item() == pytest.approx(8.48, rel=0.02)


def test_unlearned_cells__the_same_everywhere_and_constant() -> None:
    cells = unlearned_cells(1.6, torch.zeros(2, 3, 8, 8), 4)
    assert cells.log_alpha.shape == (2, 4)
    close(cells.log_alpha.exp(), [[1.6] * 4] * 2)
    close(cells.mean(), [[0.5] * 4] * 2)
    assert not cells.log_alpha.requires_grad


def _joint_deviation(concentration: float, cells: int) -> float:
    """Standard deviation of a mask's joint log-density, in closed form: 19.26 for the published grid at 1.6.

    ``l = (α - 1) (log m + log(1 - m)) + constant``, where each logarithm has variance ``ψ'(α) - ψ'(2α)`` and the two
    have covariance ``-ψ'(2α)``.
    """
    one, both = torch.polygamma(1, torch.tensor([concentration, 2 * concentration])).tolist()
    return (concentration - 1) * sqrt(cells * 2 * (one - 2 * both))


def _log_densities(cells: BetaCells) -> Tensor:
    return cells.log_density(cells.sample(range(len(cells.log_alpha))))
