import torch

from pipelines.wsi.precision import full_precision, outside_autocast, precise_linear


def test_full_precision__half_is_raised_and_finer_is_left() -> None:
    assert full_precision(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    double = torch.zeros(1, dtype=torch.float64)
    assert full_precision(double) is double


def test_precise_linear__not_rounded_by_autocast() -> None:
    inputs, weight, bias = torch.randn(50, 64), torch.randn(1, 64), torch.randn(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = precise_linear(inputs, weight, bias)
    assert torch.equal(found, torch.nn.functional.linear(inputs, weight, bias))


def test_outside_autocast__only_inside() -> None:
    product = torch.randn(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (product @ product).dtype == torch.bfloat16
        with outside_autocast(product.device):
            assert (product @ product).dtype == torch.float32
