"""Nystrom attention against the numbers of the specification (check C8), then against its plain formula."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.wsi.models.nystrom import NystromAttention
from pipelines.wsi.models.pseudo_inverse import pseudo_inverse
from tests.pipelines.wsi.waves import assert_near, wave

TOKENS = wave(5, 8, a=0.31, b=0.2)


def _attention() -> NystromAttention:
    attention = NystromAttention(8, heads=2, head_dim=4, landmarks=4, dropout=0.1).double().eval()
    attention.load_state_dict(
        {
            "to_qkv.weight": wave(24, 8, a=0.17, b=0.3, c=0.5),
            "output.weight": wave(8, 8, a=0.23, b=0.1, c=0.5),
            "output.bias": wave(8, a=0.4, b=0.2, c=0.1),
            "convolution.weight": wave(2, 1, 33, 1, a=0.21, b=0.5, c=0.1),
        }
    )
    return attention


def test_attend__output_and_first_row() -> None:
    attended = _attention().attend(TOKENS[:1], TOKENS[1:])
    first = [0.629577, 0.749276, -0.894089, -0.073916, 1.167357, -0.315837, -0.807413, 0.867706]
    last = [-0.376647, -0.307508, 0.674268, 0.148616, -0.519370, 0.358848, 0.520430, -0.513296]
    assert_near(torch.cat([attended.first, attended.others[-1:]]), [first, last])
    rows = [[-0.047566, 0.577971, -0.180564, 0.526340], [-0.023340, 0.404825, -0.156741, 0.704631]]
    assert_near(attended.first_row(), rows)


@pytest.mark.parametrize("count", [1, 3, 17, 50])
def test_attend_first__equals_the_first_row_of_all(count: int) -> None:
    attention = NystromAttention(8, heads=2, head_dim=4, landmarks=4, dropout=0.0).double()
    tokens = torch.randn(count, 8, dtype=torch.float64, requires_grad=True)
    weights = [tokens, attention.to_qkv.weight, attention.convolution.weight, attention.output.weight]
    alone, among_all = attention.attend_first(tokens[:1], tokens[1:]), attention(tokens)[:1]
    torch.testing.assert_close(alone, among_all, atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad(found.square().sum(), weights) for found in (alone, among_all)]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("count", [1, 4, 5, 41])
def test_attend__equals_the_formula_from_the_left(count: int) -> None:
    attention = NystromAttention(8, heads=2, head_dim=4, landmarks=4, dropout=0.0).double()
    tokens = torch.randn(count, 8, dtype=torch.float64)
    torch.testing.assert_close(attention(tokens), _formula(attention, tokens), atol=1e-10, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(attention(tokens), _formula(attention, tokens), atol=1e-10, rtol=0)
    attended = attention.attend(tokens[:1], tokens[1:])
    assert attended.first_row().shape == (2, count - 1)
    assert attended.other_values().shape == (2, count - 1, 4)


@pytest.mark.parametrize("count", [4096, 4097, 8210])
def test_attend__a_long_bag_in_stretches_equals_the_bag_as_a_whole(count: int) -> None:
    attention = NystromAttention(16, heads=2, head_dim=8, landmarks=80, dropout=0.0).double()
    tokens = torch.randn(count, 16, dtype=torch.float64)
    given = tokens.clone()
    with torch.no_grad():
        found = attention.attend(tokens[:1], tokens[1:])
        row = found.first_row()
    expected = attention.attend(tokens[:1], tokens[1:])
    torch.testing.assert_close(found.first, expected.first, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.others, expected.others, atol=1e-12, rtol=0)
    torch.testing.assert_close(row, expected.first_row(), atol=1e-12, rtol=0)
    torch.testing.assert_close(tokens, given, atol=0, rtol=0)


def test_attend__gradients_equal_those_of_the_formula() -> None:
    attention = NystromAttention(8, heads=2, head_dim=4, landmarks=4, dropout=0.0).double()
    tokens = torch.randn(41, 8, dtype=torch.float64, requires_grad=True)
    weights = [tokens, *attention.parameters()]
    found = torch.autograd.grad(attention(tokens).square().sum(), weights)
    expected = torch.autograd.grad(_formula(attention, tokens).square().sum(), weights)
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


def _formula(attention: NystromAttention, tokens: Tensor) -> Tensor:
    heads, width, landmarks = attention.heads, attention.head_dim, attention.landmarks
    padded = functional.pad(tokens, (0, 0, -len(tokens) % landmarks, 0))
    queries, keys, values = attention.to_qkv(padded).view(-1, 3, heads, width).permute(1, 2, 0, 3)
    queries = queries / width**0.5
    near, far = (each.reshape(heads, landmarks, -1, width).mean(dim=2) for each in (queries, keys))
    first, second, third = (a @ b.mT for a, b in ((queries, far), (near, far), (near, keys)))
    inverse = pseudo_inverse(second.softmax(-1)).times(torch.eye(landmarks, dtype=torch.float64).expand(heads, -1, -1))
    mixed = first.softmax(-1) @ inverse @ third.softmax(-1) @ values
    mixed = mixed + attention.convolution(functional.pad(values, (0, 0, 16, 16))[None])[0]
    output: Tensor = attention.output(mixed.transpose(0, 1).flatten(1))
    return output[-len(tokens) :]
