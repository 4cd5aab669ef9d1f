import numpy as np
import pytest

from pipelines.sfod.demo.shifts import REPORTED, TUNING, Shift, blur, colour_cast, fog, night, noise

EVERY = {**REPORTED, **TUNING}
GREY = np.full((200, 300, 3), 128, np.uint8)


@pytest.mark.parametrize("shift", EVERY.values(), ids=EVERY)
def test_shift__same_seed_same_pixels_and_the_input_is_left_alone(shift: Shift) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    before = image.copy()
    first = shift(image, 5)
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, shift(image, 5))
    np.testing.assert_array_equal(image, before)
    assert (first != image).any()


@pytest.mark.parametrize("shift", [night, fog, noise])
def test_shift__another_seed_other_pixels(shift: Shift) -> None:
    assert (shift(GREY, 0) != shift(GREY, 1)).any()


def test_families__reported_and_tuning_shifts_are_apart() -> None:
    assert not set(REPORTED) & set(TUNING)


def test_night__a_seventh_of_the_light_bluish_and_noisier_than_read_noise() -> None:
    red, green, blue = night(GREY, 0).reshape(-1, 3).mean(axis=0)
    assert red < green < blue < 65
    assert green == pytest.approx(255 * ((128 / 255) ** 2.2 * 0.15 * 0.9) ** (1 / 2.2), rel=0.05)


def test_fog__contrast_falls_by_the_transmission_and_brightness_rises() -> None:
    pair = np.zeros((200, 300, 3), np.uint8)
    pair[:, 150:] = 200
    seen = fog(pair, 0).astype(float)
    assert 0.35 < (seen[:, 150:].mean() - seen[:, :150].mean()) / 200 < 0.6
    assert seen.min() > 70


def test_noise__has_the_stated_spread() -> None:
    assert noise(GREY, 0).std() == pytest.approx(26, rel=0.02)


def test_blur__keeps_the_mean_and_smooths_an_edge() -> None:
    edge = np.zeros((60, 60, 3), np.uint8)
    edge[:, 30:] = 200
    blurred = blur(edge, 0).astype(float)
    assert blurred.mean() == pytest.approx(100, abs=1)
    assert np.abs(np.diff(blurred[30, :, 0])).max() < 60


def test_colour_cast__warms() -> None:
    np.testing.assert_array_equal(colour_cast(GREY, 0)[0, 0], [170, 122, 77])
