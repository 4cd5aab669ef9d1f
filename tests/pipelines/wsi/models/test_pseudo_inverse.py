"""The pseudo-inverse against the numbers of the specification (check C8), and against the iteration as published."""

import pytest
import torch
from torch import Tensor

from pipelines.wsi.models.pseudo_inverse import PseudoInverse, pseudo_inverse
from tests.pipelines.wsi.waves import assert_near, wave

MATRIX = wave(3, 3, a=0.9, b=0.1).softmax(dim=-1)
OTHER = wave(3, 3, a=2.3, b=0.4, c=3).softmax(dim=-1)


def test_pseudo_inverse__three_by_three() -> None:
    expected = [[-2.057296, 2.129452, 0.927846], [6.606662, -1.103811, -4.502855], [-2.737372, 0.080588, 3.656786]]
    assert_near(_multiplied_out(pseudo_inverse(MATRIX[None]))[0], expected)


def test_pseudo_inverse__scale_is_shared_by_the_heads() -> None:
    alone = _multiplied_out(pseudo_inverse(MATRIX[None]))[0]
    with_another = _multiplied_out(pseudo_inverse(torch.stack([MATRIX, OTHER])))[0]
    assert not torch.allclose(alone, with_another, atol=1e-3)


def test_pseudo_inverse__equals_the_iteration_multiplied_out() -> None:
    matrices = torch.randn(4, 16, 16, dtype=torch.float64).softmax(dim=-1)
    found = pseudo_inverse(matrices)
    torch.testing.assert_close(_multiplied_out(found), _iterated(matrices), atol=1e-9, rtol=1e-9)


def test_after__is_the_product_from_the_other_side() -> None:
    found = pseudo_inverse(torch.stack([MATRIX, OTHER]))
    rows = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(found.after(rows), rows @ _multiplied_out(found))


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 4.0])
def test_pseudo_inverse__loses_no_digit_that_the_published_iteration_keeps(sharpness: float) -> None:
    queries, keys = torch.randn(2, 4, 64, 64, dtype=torch.float64)
    matrices = (sharpness * queries @ keys.mT / 8).softmax(dim=-1)
    columns = torch.randn(4, 64, 16, dtype=torch.float64)
    exact = _iterated(matrices) @ columns
    published = _iterated(matrices.float()) @ columns.float()
    found = pseudo_inverse(matrices.float())
    assert _error(found.times(columns.float()), exact) <= 2 * _error(published, exact)
    rows = columns.mT
    exact, published = rows @ _iterated(matrices), rows.float() @ _iterated(matrices.float())
    assert _error(found.after(rows.float()), exact) <= 2 * _error(published, exact)


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().max() / exact.abs().max())


def _multiplied_out(inverse: PseudoInverse) -> Tensor:
    heads, size, _ = inverse.before.shape
    return inverse.times(torch.eye(size, dtype=inverse.before.dtype).expand(heads, -1, -1))


def _iterated(matrices: Tensor) -> Tensor:
    one = torch.eye(matrices.shape[-1], dtype=matrices.dtype)
    inverse = matrices.mT / (matrices.abs().sum(-1).max() * matrices.abs().sum(-2).max())
    for _ in range(6):
        product = matrices @ inverse
        inverse = inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product))) / 4
    return inverse
