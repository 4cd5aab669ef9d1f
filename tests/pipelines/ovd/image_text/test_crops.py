"""Crops: boxes scaled about their centres (P1), and what becomes of long ones."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.ovd.image_text.crops import cut_crops, scale_boxes_about_center


@pytest.mark.parametrize(
    ("box", "scale", "expected"),
    [
        ([40, 20, 80, 60], 1.5, [30, 10, 90, 70]),
        ([10, 10, 110, 90], 1.5, [0, 0, 135, 100]),
        ([-6, 4, 30, 8], 1, [0, 4, 30, 8]),
        ([150, 50, 240, 130], 1, [150, 50, 200, 100]),
    ],
)
def test_scale__then_clip(box: list[float], scale: float, expected: list[float]) -> None:
    scaled = scale_boxes_about_center(torch.tensor([box]).float(), scale, (100, 200))
    torch.testing.assert_close(scaled[0], torch.tensor(expected).float(), atol=1e-5, rtol=0)


def _image() -> np.ndarray:
    """Red, green and blue thirds from left to right, 20 x 60 px."""
    image = np.zeros((20, 60, 3), np.uint8)
    for third in range(3):
        image[:, 20 * third : 20 * third + 20, third] = 255
    return image


def test_cut__center_loses_the_ends_of_a_long_box() -> None:
    [crop] = cut_crops(_image(), torch.tensor([[0.0, 0, 60, 20]]), 20)
    assert crop.shape == (3, 20, 20)
    assert crop.float().mean(dim=(1, 2)).tolist() == [0, 255, 0]


def test_cut__squash_keeps_all_of_it() -> None:
    [crop] = cut_crops(_image(), torch.tensor([[0.0, 0, 60, 20]]), 30, "squash")
    means = crop.float().mean(dim=(1, 2))
    assert means.tolist() == pytest.approx([85, 85, 85], abs=2)
    assert crop[0, 15, 2] == 255
    assert crop[2, 15, 27] == 255


def test_cut__pad_keeps_the_shape_in_grey() -> None:
    [crop] = cut_crops(_image(), torch.tensor([[0.0, 0, 60, 20]]), 30, "pad")
    assert crop[:, :10].unique().tolist() == [128]
    assert crop[:, 20:].unique().tolist() == [128]
    assert crop[0, 15, 2] == 255
    assert crop[2, 15, 27] == 255


def test_cut__center_is_pillows_own_resizing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    [crop] = cut_crops(image, torch.tensor([[4.4, 7.6, 36.2, 29.7]]), 16)
    region = Image.fromarray(image).crop((4, 8, 36, 30)).resize((23, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(crop.permute(1, 2, 0).numpy(), np.asarray(region)[:, 4:20])


def test_cut__a_box_within_a_pixel_and_none_at_all() -> None:
    assert cut_crops(_image(), torch.tensor([[30.2, 10.1, 30.3, 10.2]]), 8).shape == (1, 3, 8, 8)
    assert cut_crops(_image(), torch.zeros(0, 4), 8).shape == (0, 3, 8, 8)
