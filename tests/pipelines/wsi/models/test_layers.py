import pytest
import torch

from pipelines.wsi.models.layers import Dropout, full_precision, keep_mask, keep_scale, precise_linear
from vision_core.training.runtime import full_float32


def test_forward__evaluation_gives_the_inputs_themselves() -> None:
    inputs = torch.randn(5, 3)
    assert Dropout(0.25).eval()(inputs) is inputs
    assert Dropout(0.0)(inputs) is inputs


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.9])
def test_forward__share_and_mean(rate: float) -> None:
    torch.manual_seed(3)
    found = Dropout(rate)(torch.ones(1000, 200))
    assert abs(float((found == 0).float().mean()) - rate) < 0.005
    assert abs(float(found.mean()) - 1) < 0.03
    torch.testing.assert_close(found.max(), torch.tensor(1 / (1 - rate)))


def test_forward__everything_dropped() -> None:
    assert not Dropout(1.0)(torch.ones(4, 4)).any()
    assert keep_scale(1.0) == 0


def test_keep_mask__follows_the_seed() -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(keep_mask((7, 9), 0.5, torch.device("cpu")))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_forward__gradient_is_the_mask() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(30, 30, requires_grad=True)
    found = Dropout(0.25)(inputs)
    found.sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(found, inputs.detach() * inputs.grad)


def test_full_precision__half_is_raised_and_finer_is_left() -> None:
    assert full_precision(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    double = torch.zeros(1, dtype=torch.float64)
    assert full_precision(double) is double


def test_precise_linear__not_rounded_by_autocast() -> None:
    inputs, weight, bias = torch.randn(50, 64), torch.randn(1, 64), torch.randn(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = precise_linear(inputs, weight, bias)
    assert torch.equal(found, torch.nn.functional.linear(inputs, weight, bias))


def test_full_float32__only_inside() -> None:
    product = torch.randn(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (product @ product).dtype == torch.bfloat16
        with full_float32(product.device):
            assert (product @ product).dtype == torch.float32
