"""Losses against the numbers of the specification (P10)."""

import pytest
import torch
from torch.nn import functional

from pipelines.ovd.methods.losses import box_loss, classification_loss
from pipelines.ovd.methods.reweighting import adaptive_weights, confidence_weights
from tests.pipelines.ovd.methods.test_reweighting import BACKGROUND, BASE, LABELS, PSEUDO, SCORE

LOGITS = torch.tensor(
    [
        [1.2, -0.3, 0.5, 0.1, 0],
        [-0.2, 0.4, 0, 1.5, 0],
        [2, 0.1, -0.5, 0.3, 0],
        [0.3, 0.9, -0.1, -0.4, 0],
        [-1, 0.2, 0.1, -0.3, 0],
        [0.7, -0.7, 0.2, 0.6, 0],
    ]
)
TARGET = torch.tensor(
    [
        [0.5, -0.25, 0, 0],
        [0.666667, 0.5, 0.911608, -0.256466],
        [0.5, -0.5, 0.476551, -0.526803],
        [0.25, -0.125, 0.698810, -0.389808],
        [float("inf"), 0, 0, 0],
        [0, float("-inf"), 0, 0],
    ]
)
DELTAS = torch.tensor([0.5, -0.2, 0.05, 0.1]).repeat(6, 1)


def test_classification__each_region() -> None:
    each = functional.cross_entropy(LOGITS, LABELS, reduction="none")
    expected = torch.tensor([2.356023, 0.673870, 0.438044, 0.953892, 1.489589, 1.880054])
    torch.testing.assert_close(each, expected, atol=1e-5, rtol=0)


def test_classification__divided_by_the_number_of_regions() -> None:
    weights = adaptive_weights(SCORE, BACKGROUND, PSEUDO)
    assert classification_loss(LOGITS, LABELS, weights).item() == pytest.approx(1.694471, abs=1e-5)
    assert classification_loss(LOGITS, LABELS, torch.ones(6)).item() == pytest.approx(1.298579, abs=1e-5)
    burn_in = confidence_weights(SCORE, PSEUDO)
    assert classification_loss(LOGITS, LABELS, burn_in).item() == pytest.approx(1.260611, abs=1e-5)


def test_box__all_foreground_or_base_alone() -> None:
    foreground = LABELS < 4
    assert box_loss(DELTAS, TARGET, foreground).item() == pytest.approx(0.850285, abs=1e-5)
    assert box_loss(DELTAS, TARGET, foreground & BASE).item() == pytest.approx(0.225559, abs=1e-5)


def test_box__weighted() -> None:
    foreground = LABELS < 4
    doubled = box_loss(DELTAS, TARGET, foreground, torch.full((6,), 2.0))
    assert doubled.item() == pytest.approx(2 * 0.850285, abs=1e-5)


def test_box__background_adds_no_gradient_and_no_nan() -> None:
    deltas = DELTAS.clone().requires_grad_(True)
    box_loss(deltas, TARGET, LABELS < 4).backward()
    assert deltas.grad is not None
    assert deltas.grad.isfinite().all()
    assert not deltas.grad[4:].any()
    assert deltas.grad[:4].any(dim=1).all()


def test_losses__of_no_region_are_zero_with_a_gradient() -> None:
    logits, deltas = torch.zeros(0, 5, requires_grad=True), torch.zeros(0, 4, requires_grad=True)
    none = torch.zeros(0)
    total = classification_loss(logits, none.long(), none) + box_loss(deltas, deltas.detach(), none.bool())
    total.backward()
    assert total.item() == 0
