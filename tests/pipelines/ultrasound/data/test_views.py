import numpy as np
import pytest
import torch

from pipelines.ultrasound.config import Augmentation
from pipelines.ultrasound.data.views import screen_view, segmenter_view, training_view, zscore

STILL = Augmentation(flip=0, affine=0, speckle=0)


def picture() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:40, :48]
    disc = (rows - 14) ** 2 + (columns - 12) ** 2 <= 64
    return (50 + 150 * disc).astype(np.uint8), disc.astype(np.float32)


def test_zscore__published_numbers() -> None:
    found = zscore(np.arange(1, 13).reshape(3, 4))
    assert found.ravel()[:3].tolist() == pytest.approx([-1.525426, -1.248075, -0.970725], abs=1e-6)
    assert found.mean() == pytest.approx(0, abs=1e-7)


def test_zscore__a_constant_image_becomes_zeros() -> None:
    assert not zscore(np.full((4, 4), 77, np.uint8)).any()
    assert not zscore(np.full((1, 1), 3.7)).any()


def test_zscore__sixteen_bits_are_not_clipped() -> None:
    image = np.array([[0, 4095], [65535, 300]], np.uint16)
    assert len(np.unique(zscore(image))) == 4


def test_screen_view__from_zero_to_one_in_the_wanted_size() -> None:
    image = np.full((60, 80), 255, np.uint8)
    assert screen_view(image, 255).shape == (1, 60, 80)
    small = screen_view(image, 255, 32)
    assert small.shape == (1, 32, 32)
    assert small.max() == pytest.approx(1)
    assert screen_view(np.full((4, 4), 65535, np.uint16), 65535).max() == 1


def test_training_view__with_nothing_drawn_is_the_view_of_prediction() -> None:
    image, target = picture()
    pixels, moved = training_view(image, target, STILL, (0, 0, 0))
    assert torch.equal(pixels, segmenter_view(image))
    assert torch.equal(moved[0], torch.from_numpy(target))


def test_training_view__image_and_target_flip_together() -> None:
    image, target = picture()
    pixels, moved = training_view(image, target, Augmentation(flip=1, affine=0, speckle=0), (0, 0, 0))
    assert torch.equal(pixels, segmenter_view(image).flip(-1))
    assert torch.equal(moved[0], torch.from_numpy(target).flip(-1))


def test_training_view__image_and_target_move_together() -> None:
    image, target = picture()
    for index in range(12):
        pixels, moved = training_view(image, target, Augmentation(flip=0, affine=1, speckle=0), (0, 0, index))
        bright = pixels[0] > (pixels.min() + pixels.max()) / 2
        found = 2 * (bright & (moved[0] > 0)).sum() / (bright.sum() + (moved[0] > 0).sum())
        assert found > 0.93
        assert set(moved.unique().tolist()) <= {0.0, 1.0}
        assert pixels.min() == pytest.approx(segmenter_view(image).min().item(), abs=1e-5)  # the fill


def test_training_view__scale_is_the_same_in_both_directions() -> None:
    image, target = picture()
    only_scale = Augmentation(flip=0, affine=1, speckle=0, degrees=0, shift=0, scale=0.5)
    for index in range(8):
        found = training_view(image, target, only_scale, (0, 0, index))[1][0].numpy()
        rows, columns = (int(found.any(axis=axis).sum()) for axis in (1, 0))
        if rows > 0 and found[0].sum() == 0 and found[:, 0].sum() == 0:
            assert abs(rows - columns) <= 1


def test_training_view__speckle_is_multiplicative() -> None:
    image, target = picture()
    pixels, _ = training_view(image, target, Augmentation(flip=0, affine=0, speckle=1, noise=0.1), (0, 0, 0))
    ratio = pixels / segmenter_view(image) - 1
    assert ratio.std().item() == pytest.approx(0.1, rel=0.1)
    assert ratio.mean().item() == pytest.approx(0, abs=0.01)


def test_training_view__draws_follow_from_seed_epoch_and_index() -> None:
    image, target = picture()
    every = Augmentation(flip=0.5, affine=1, speckle=1, gaussian=1, smooth=1)
    one, again, other = (training_view(image, target, every, draw)[0] for draw in ((1, 2, 3), (1, 2, 3), (1, 2, 4)))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert type(one) is torch.Tensor
