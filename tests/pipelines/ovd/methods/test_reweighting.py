"""Weights of regions against the numbers of the specification (P9, P11, P18a)."""

import pytest
import torch

from pipelines.ovd.methods.mining import mine
from pipelines.ovd.methods.reweighting import adaptive_weights, confidence_weights

BACKGROUND = torch.tensor([0.05, 0.60, 0.30, 0.90, 0.10, 0.20])
SCORE = torch.tensor([0.95, 0.95, 1, 0.92, 1, 0.90])
BASE = torch.tensor([False, False, True, False, True, False])
LABELS = torch.tensor([1, 3, 0, 1, 4, 4])
PSEUDO = ~BASE & (LABELS < 4)


def test_adaptive__the_numbers_of_the_specification() -> None:
    weights = adaptive_weights(SCORE, BACKGROUND, PSEUDO)
    torch.testing.assert_close(weights, torch.tensor([1.90, 1.35, 1, 1.02, 1, 1]), atol=1e-6, rtol=0)


def test_confidence__pseudo_regions_alone() -> None:
    torch.testing.assert_close(confidence_weights(SCORE, PSEUDO), torch.tensor([0.95, 0.95, 1, 0.92, 1, 1]))


def test_adaptive__mined_score_and_weak_view_together() -> None:
    probabilities = torch.tensor([[0.1, 0.4, 0.1, 0.2, 0.2]])
    novel, candidate = torch.tensor([False, True, False, True]), torch.tensor([False])
    score = mine(probabilities, torch.tensor([0.96]), candidate, novel).score
    assert score.item() == pytest.approx(0.98, abs=1e-6)
    weight = adaptive_weights(score, torch.tensor([0.05]), torch.tensor([True]))
    assert weight.item() == pytest.approx(1.93, abs=1e-6)


def test_adaptive__neutral_settings_leave_the_loss_unweighted() -> None:
    weights = adaptive_weights(torch.ones(6), BACKGROUND, PSEUDO, score_weight=1, scale=1)
    assert weights.tolist() == [1] * 6


def test_adaptive__no_gradient_passes_through() -> None:
    background = BACKGROUND.clone().requires_grad_(True)
    assert not adaptive_weights(SCORE, background, PSEUDO).requires_grad
    assert not confidence_weights(background, PSEUDO).requires_grad
