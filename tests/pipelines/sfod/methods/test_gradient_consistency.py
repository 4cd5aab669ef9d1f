"""Gradient consistency against the numbers of the specification (check 8.17), and by finite differences."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.sfod.methods.gradient_consistency import grad_consistency

WEAK, STRONG = torch.tensor([[1.0, 2]]), torch.tensor([[2.0, 1]])
LABEL = torch.tensor([0])


def _layer() -> nn.Linear:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    return layer


def _loss(layer: nn.Module, features: Tensor) -> Tensor:
    return functional.cross_entropy(layer(features), LABEL)


def test_linear__weight_alone_and_with_bias() -> None:
    layer = _layer()
    weak, strong = _loss(layer, WEAK), _loss(layer, STRONG)
    assert grad_consistency(weak, strong, [layer.weight]).item() == pytest.approx(0.2, abs=1e-5)
    assert grad_consistency(weak, strong, list(layer.parameters())).item() == pytest.approx(0.1, abs=1e-5)


def test_linear__identical_views_are_zero_and_opposite_ones_two() -> None:
    layer = _layer()
    weak = _loss(layer, WEAK)
    assert grad_consistency(weak, weak, list(layer.parameters())).item() == pytest.approx(0, abs=1e-5)
    assert grad_consistency(weak, -weak, list(layer.parameters())).item() == pytest.approx(2, abs=1e-5)


def test_convolution__cosines_along_the_second_dimension() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, kernel_size=2)
    weak, strong = (layer(torch.randn(2, 3, 3, 3)).square().mean() for _ in range(2))
    first, second = (torch.autograd.grad(loss, [layer.weight], retain_graph=True)[0] for loss in (weak, strong))
    cosines = []
    for out in range(4):
        for down in range(2):
            for across in range(2):
                one, other = first[out, :, down, across], second[out, :, down, across]
                cosines.append(float(one @ other / (one.norm() * other.norm())))
    found = grad_consistency(weak, strong, [layer.weight])
    assert found.item() == pytest.approx(1 - sum(cosines) / 16, abs=1e-5)


def test_gradient__is_of_the_strong_view_alone() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(2, 3).double()
    inputs = [torch.randn(4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    labels = torch.tensor([0, 1, 2, 1])

    def term(weak: Tensor, strong: Tensor) -> Tensor:
        first, second = (functional.cross_entropy(layer(each), labels) for each in (weak, strong))
        return grad_consistency(first, second, list(layer.parameters()))

    weak_gradient, strong_gradient = torch.autograd.grad(term(*inputs), inputs, allow_unused=True)
    assert weak_gradient is None
    moved = inputs[1].detach().clone()
    moved[1, 0] += 1e-2
    back = inputs[1].detach().clone()
    back[1, 0] -= 1e-2
    slope = (term(inputs[0], moved) - term(inputs[0], back)).item() / 2e-2
    assert strong_gradient[1, 0].item() == pytest.approx(slope, rel=2e-2, abs=1e-5)
    assert abs(slope) > 1e-3


@pytest.mark.parametrize(("masks", "expected"), [(False, 0.25), (True, 0.0)])
def test_dead_units__keep_identical_views_from_zero_unless_masked(masks: bool, expected: float) -> None:
    layer = _layer()
    with torch.no_grad():
        layer.weight[1].neg_()  # its unit never fires on a positive input
    loss = functional.cross_entropy(layer(WEAK).relu(), LABEL)
    found = grad_consistency(loss, loss, list(layer.parameters()), masks_zero_rows=masks)
    assert found.item() == pytest.approx(expected, abs=1e-5)
