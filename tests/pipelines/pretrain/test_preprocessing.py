"""Normalisation: check N10."""

import torch

from pipelines.pretrain.preprocessing import normalise
from tests.pipelines.pretrain.example import close


def test_normalise__bytes() -> None:
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 3).expand(3, 1, 3)
    normalised = normalise(pixels)
    assert normalised.shape == (3, 1, 3)
    for channel in normalised:
        close(channel[0], [-0.984127, 0.578154, 2.128229])


def test_normalise__grey_becomes_three_equal_channels() -> None:
    normalised = normalise(torch.tensor([[[[0, 255]]], [[[7, 9]]]], dtype=torch.uint8))
    assert normalised.shape == (2, 3, 1, 2)
    assert torch.equal(normalised[:, 0], normalised[:, 2])


def test_normalise__sixteen_bits_span_the_same_range() -> None:
    wide = normalise(torch.tensor([[[0, 65535]]], dtype=torch.uint16))
    assert torch.equal(wide, normalise(torch.tensor([[[0, 255]]], dtype=torch.uint8)))
