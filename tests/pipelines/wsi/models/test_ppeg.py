"""Positions against the numbers of the specification (check C9), then against three separate convolutions."""

import pytest
import torch

from pipelines.wsi.models.ppeg import Ppeg, fill_square
from tests.pipelines.wsi.waves import assert_near, wave


def _positions() -> Ppeg:
    positions = Ppeg(2).double()
    positions.load_state_dict(
        {
            "wide.weight": wave(2, 1, 7, 7, a=0.13, b=0.3, c=0.2),
            "middle.weight": wave(2, 1, 5, 5, a=0.17, b=0.1, c=0.2),
            "narrow.weight": wave(2, 1, 3, 3, a=0.19, b=0.5, c=0.2),
            "wide.bias": wave(2, a=0.3, b=0.1, c=0.1),
            "middle.bias": wave(2, a=0.4, b=0.2, c=0.1),
            "narrow.bias": wave(2, a=0.5, b=0.3, c=0.1),
        }
    )
    return positions


def test_forward__five_tokens_in_a_square_of_seven() -> None:
    expected = [
        [0.697882, 1.092861],
        [1.676307, 1.293577],
        [0.799468, 0.115999],
        [-0.783176, -0.885686],
        [-1.111802, -0.368728],
    ]
    assert_near(_positions()(wave(5, 2, a=0.6, b=0.2)), expected)


def test_forward__fifty_tokens() -> None:
    found = _positions()(wave(50, 2, a=0.6, b=0.2))
    assert_near(found[[0, 49]], [[0.252099, 1.193149], [1.423049, 0.158617]])


@pytest.mark.parametrize("dim", [3, 100])
@pytest.mark.parametrize(("least_side", "count"), [(7, 1), (1, 1), (1, 9), (7, 60)])
def test_forward__equals_three_convolutions(least_side: int, count: int, dim: int) -> None:
    positions = Ppeg(dim, least_side)
    tokens = torch.randn(count, dim)
    square = fill_square(tokens)
    side = max(round(len(square) ** 0.5), least_side)
    image = torch.cat([square, torch.zeros(side**2 - len(square), dim)]).T.reshape(dim, side, side)
    layers = (positions.wide, positions.middle, positions.narrow)
    expected = image + torch.stack([layer(image) for layer in layers]).sum(dim=0)
    torch.testing.assert_close(positions(tokens), expected.flatten(1).T[:count], atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(positions(tokens), expected.flatten(1).T[:count], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "side"), [(1, 1), (2, 2), (4, 2), (5, 3), (10, 4), (49, 7), (50, 8)])
def test_fill_square__first_tokens_again(count: int, side: int) -> None:
    tokens = torch.arange(count)[:, None]
    filled = fill_square(tokens)[:, 0].tolist()
    assert filled == [*range(count), *range(side**2 - count)]


def test_forward__gradients_of_two_bags_add_up() -> None:
    positions, tokens = Ppeg(2), torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    positions(tokens).square().sum().backward()
    once = {
        name: parameter.grad.clone() for name, parameter in positions.named_parameters() if parameter.grad is not None
    }
    positions(tokens).square().sum().backward()
    assert len(once) == 6
    for name, parameter in positions.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name])
