"""Normalisation: check N10. The middle of an image: as torchvision has it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from pipelines.pretrain.data.preprocessing import MEAN, STD, centre_view, described, normalise
from pipelines.pretrain.data_settings import PretrainData
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


def test_normalise__of_bytes_is_that_of_floats_to_the_last_bit() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    as_floats = F.normalize(levels.expand(3, 16, 16).to(torch.float32) / 255, [MEAN] * 3, [STD] * 3)
    assert torch.equal(normalise(levels), as_floats)


@pytest.mark.parametrize("size", [(300, 300), (512, 333), (97, 411), (224, 224), (28, 28), (255, 257)])
def test_centre_view__same_pixels_as_torchvision(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    resized = F.resize(Image.fromarray(image), [256], InterpolationMode.BILINEAR, antialias=True)
    np.testing.assert_array_equal(centre_view(image, 256, 224), np.array(F.center_crop(resized, [224, 224])))


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_centre_view__a_strip_does_not_become_gigabytes(size: tuple[int, int]) -> None:
    view = centre_view(np.full((*size, 3), 7, np.uint8), 256, 224)
    assert view.shape == (224, 224, 3)
    assert (view == 7).all()


def test_described__can_be_written_and_read_again() -> None:
    rule = described(PretrainData())
    assert json.loads(json.dumps(rule)) == rule
    assert (rule["image_px"], rule["resize_px"], rule["mean"]) == (224, 256, [0.3162] * 3)
