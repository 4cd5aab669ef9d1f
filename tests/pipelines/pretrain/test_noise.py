"""Entropy as the alarm and the log have it: the mean over images and cells, of the worked example (N1)."""

import pytest
import torch

from pipelines.pretrain.noise import Drawn
from pipelines.pretrain.noise_mask.beta import BetaCells
from tests.pipelines.pretrain.example import beta_cells, sampled

ENTROPIES = [-0.040818, -0.106531, -0.303330, -0.494286, -0.161816, -0.298930, -0.161675, -0.061604]


def drawn(cells: BetaCells) -> Drawn:
    nothing = torch.tensor(0)
    return Drawn(cells=cells, sample=sampled(), masks=sampled(), is_finite=nothing == 0, num_moved=nothing)


def test_entropy__is_the_mean_over_images_and_cells() -> None:
    assert drawn(beta_cells()).entropy().item() == pytest.approx(sum(ENTROPIES) / 8, abs=2e-6)


def test_entropy__of_images_that_differ_is_not_that_of_their_mean() -> None:
    opposite = torch.tensor([[3.0], [-3.0]])
    assert drawn(BetaCells(log_alpha=opposite, log_beta=opposite)).entropy().item() < -1
