"""The mapping network against its table of layers (check 8.15), and a second one written layer by layer."""

import pytest
import torch
from torch.nn import functional

from pipelines.sfod.methods.mapping import MappingNetwork, _convolved


def test_network__widths_and_parameters_of_the_published_one() -> None:
    with torch.device("meta"):
        network = MappingNetwork()
        maps = torch.empty(2, 2048, 7, 7)
        assert network(maps).shape == (2, 512)
        assert network.hidden(maps).shape == (2, 2048)
    assert sum(each.numel() for each in network.hidden_parameters()) == 44_047_360
    assert sum(each.numel() for each in network.parameters()) == 44_047_360 + 1_049_088
    assert not list(network.buffers())


@pytest.mark.parametrize(
    ("channels", "hidden", "expected"),
    [(256, 1024, (128, 256, 1024, 64)), (512, 4096, (256, 512, 4096, 128)), (8, 16, (4, 8, 16, 2))],
)
def test_network__widths_follow_the_channels_and_hidden_the_box_predictor(
    channels: int, hidden: int, expected: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        network = MappingNetwork(channels, hidden)
    found = (network.linear.in_features, network.linear.out_features, network.hidden_dim, network.dim)
    assert found == expected


def test_network__layer_by_layer() -> None:
    torch.manual_seed(0)
    network, maps = MappingNetwork(16, 24), torch.randn(3, 16, 7, 7)
    found = maps
    for convolution in network.convolutions:
        found = functional.conv2d(found, convolution.weight, convolution.bias)  # type: ignore[arg-type]
        mean, variance = torch.zeros(8), torch.ones(8)
        found = functional.relu(functional.batch_norm(found, mean, variance, eps=1e-5))
    assert found.shape == (3, 8, 1, 1)
    hidden = functional.relu(found[:, :, 0, 0] @ network.linear.weight.T + network.linear.bias)
    hidden = hidden @ network.hidden_layer.weight.T + network.hidden_layer.bias
    torch.testing.assert_close(network.hidden(maps), hidden, atol=1e-6, rtol=1e-5)
    projected = functional.relu(hidden) @ network.projection.weight.T + network.projection.bias
    torch.testing.assert_close(network(maps), projected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 2])
def test_convolved__many_channels_as_the_library_does(count: int) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(1024, 3, kernel_size=3)
    maps, others = (torch.randn(count, 1024, 5, 7).requires_grad_(True) for _ in range(2))
    with torch.no_grad():
        others.copy_(maps)
    found, expected = _convolved(maps, layer), layer(others)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    found.square().sum().backward()
    gradient, layer.weight.grad = layer.weight.grad, None
    expected.square().sum().backward()
    torch.testing.assert_close(maps.grad, others.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradient, layer.weight.grad, atol=1e-4, rtol=1e-4)
