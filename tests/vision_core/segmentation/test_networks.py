from typing import Any

import pytest
import torch

from vision_core.errors import ConfigError
from vision_core.segmentation.networks import ResidualUNet, _padded_to
from vision_core.segmentation.settings import THIN, Segmenter


def parameters(settings: Segmenter) -> int:
    return sum(each.numel() for each in ResidualUNet(settings).parameters())


def test_network__published_numbers_of_parameters() -> None:
    assert parameters(Segmenter()) == 7_781_329
    assert parameters(Segmenter(layers=4)) == 1_943_761
    assert parameters(Segmenter(layers=2, first=4)) == 7_557


@pytest.mark.parametrize("size", [(58, 52), (101, 91), (20, 18), (32, 33)])
@pytest.mark.parametrize(
    "settings",
    [
        Segmenter(layers=4, first=4),
        Segmenter(layers=3, first=4, gate="attention"),
        Segmenter(layers=2, first=4, squeeze=2),
    ],
)
def test_network__answers_in_the_size_of_the_image(size: tuple[int, int], settings: Segmenter) -> None:
    network = ResidualUNet(settings).eval()
    found = torch.sigmoid(network(torch.rand(2, 1, *size)))
    assert found.shape == (2, 1, *size)
    assert found.min() > 0
    assert found.max() < 1


def test_network__five_layers_take_the_teaching_images() -> None:
    assert ResidualUNet(Segmenter(first=2)).eval()(torch.rand(1, 1, 58, 52)).shape == (1, 1, 58, 52)


def test_network__a_block_adds_its_first_unit_to_its_second() -> None:
    block: Any = ResidualUNet(Segmenter(layers=1, first=2)).eval().encoder[0]
    image = torch.rand(1, 1, 8, 8)
    first, second = block.first, block.second
    conv = torch.nn.functional.conv2d(image, first.conv.weight, first.conv.bias, padding=1)
    unit = conv.relu() / (1 + first.adn.N.eps) ** 0.5  # a fresh norm: convolution, ReLU, norm
    assert torch.allclose(first(image), unit, atol=1e-6)
    assert torch.allclose(block(image), unit + second(unit), atol=1e-6)


def test_network__odd_sizes_are_padded_with_less_before_than_behind() -> None:
    padded = _padded_to(torch.ones(1, 1, 2, 2), torch.empty(1, 1, 5, 3))
    assert padded[0, 0].tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_network__gates_weigh_what_the_encoder_hands_over() -> None:
    network = ResidualUNet(Segmenter(layers=2, first=4, gate="attention"))
    assert parameters(network.settings) > parameters(Segmenter(layers=2, first=4))
    network(torch.rand(2, 1, 16, 16)).sum().backward()
    assert all(each.grad is not None for each in network.parameters())
    skip = torch.rand(2, 4, 16, 16)
    weights = network.gates[1](torch.rand(2, 4, 16, 16), skip) / skip
    assert torch.allclose(weights[:, :1].expand_as(weights), weights, atol=1e-5)  # one weight a pixel
    assert 0 < weights.min() < weights.max() < 1


def test_network__an_image_too_small_is_refused_with_its_size() -> None:
    with pytest.raises(ConfigError, match=r"needs 32 pixels a side, found '31 x 40'"):
        ResidualUNet(Segmenter(first=1))(torch.rand(1, 1, 31, 40))


def test_network__thin_one_has_a_seventh_of_the_parameters() -> None:
    assert parameters(THIN) == 1_094_632
    assert ResidualUNet(THIN).least_side == 32
