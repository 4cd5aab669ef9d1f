import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import functional

from vision_core.images import augmentation as augment
from vision_core.images.augmentation import Erasing, StrongView, noise_bytes
from vision_core.images.augmentation_settings import StrongViewSettings

PUBLISHED = StrongViewSettings()


def coloured(height: int = 24, width: int = 24, seed: int = 0) -> NDArray[np.uint8]:
    """An image of random colours, on which every change shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["published", "stock", "none"])
def test_strong_view__keeps_shape_type_and_the_image_given(kind: str) -> None:
    image = coloured(20, 37)
    before = image.copy()
    view = StrongView(StrongViewSettings.model_validate({"kind": kind}))
    for seed in range(20):
        strong = view(image, seed)
        assert strong.shape == image.shape
        assert strong.dtype == np.uint8
        assert strong.flags.writeable
        assert not np.shares_memory(strong, image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("kind", ["published", "stock"])
def test_strong_view__same_seed_same_view_whatever_came_before(kind: str) -> None:
    settings = StrongViewSettings.model_validate({"kind": kind})
    fresh, used = StrongView(settings), StrongView(settings)
    for seed in range(7):
        used(coloured(seed=seed), seed)
    for seed in range(30, 40):
        np.testing.assert_array_equal(fresh(coloured(), seed), used(coloured(), seed))


def test_strong_view__needs_no_settings() -> None:
    for seed in range(5):
        np.testing.assert_array_equal(StrongView()(coloured(), seed=seed), StrongView(PUBLISHED)(coloured(), seed))


@pytest.mark.slow
def test_strong_view__gates_are_independent_draws() -> None:
    image, view = coloured(), StrongView(PUBLISHED)
    unchanged = sum(np.array_equal(view(image, seed), image) for seed in range(4000))
    assert 15 <= unchanged <= 55  # 0.0084 x 4000 = 34, plus the faintest blurs; one shared draw gives about 800


def test_strong_view__a_fifth_is_grey_before_erasing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Erasing, "apply", lambda _self, img, **_: img)
    image, view = coloured(), StrongView(PUBLISHED)
    share = np.mean([np.ptp(view(image, seed), axis=2).max() == 0 for seed in range(2000)])
    assert share == pytest.approx(0.2, abs=0.03)


def test_strong_view__channel_order_decides_which_channel_is_luminance_weighted() -> None:
    pure_red = np.zeros((8, 8, 3), np.uint8)
    pure_red[..., 0] = 255
    grey = augment.Grey(p=1.0)
    as_rgb, as_bgr = grey(image=pure_red)["image"], grey(image=pure_red[..., ::-1].copy())["image"]
    assert (as_rgb.max(), as_bgr.max()) == (76, 29)  # ITU-R 601: 0.299 and 0.114 of 255
    views = {order: StrongView(StrongViewSettings(channel_order=order)) for order in ("rgb", "bgr_as_rgb")}
    assert any(not np.array_equal(views["rgb"](pure_red, k), views["bgr_as_rgb"](pure_red, k)) for k in range(20))


def test_noise_bytes__wrapped_values_of_the_specification() -> None:
    np.testing.assert_array_equal(noise_bytes(np.array([-0.5, -0.1, 1.1, 2.0]), "wrap"), [129, 231, 24, 254])
    np.testing.assert_array_equal(noise_bytes(np.array([-0.5, -0.1, 1.1, 2.0]), "clip"), [0, 0, 255, 255])


def test_noise_bytes__every_byte_survives_the_float_round_trip() -> None:
    levels = np.arange(256)
    np.testing.assert_array_equal(noise_bytes((levels / 255).astype(np.float32), "wrap"), levels)


def test_erasing__other_pixels_are_identical_and_the_area_is_in_range() -> None:
    image = coloured(60, 100)
    erase = Erasing(area=(0.05, 0.2), aspect=(0.3, 3.3), noise="wrap", p=1.0)
    for seed in range(20):
        erase.set_random_seed(seed)
        erased = erase(image=image)["image"]
        rows, columns = np.nonzero((erased != image).any(axis=2))
        inside = np.zeros((60, 100), bool)
        inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert 0.04 <= inside.mean() <= 0.21
        np.testing.assert_array_equal(erased[~inside], image[~inside])


def test_erasing__image_too_small_for_a_rectangle_stays() -> None:
    image = coloured(1, 1)
    erase = Erasing(area=(0.9, 0.9), aspect=(1.0, 1.0), noise="wrap", p=1.0)
    np.testing.assert_array_equal(erase(image=image)["image"], image)


@pytest.mark.parametrize(
    ("ours", "theirs", "amount"),
    [
        (augment._turn_hue, functional.adjust_hue, -0.07),
        (augment._turn_hue, functional.adjust_hue, 0.1),
        (augment._scale_brightness, functional.adjust_brightness, 1.3),
        (augment._scale_contrast, functional.adjust_contrast, 0.7),
        (augment._scale_saturation, functional.adjust_saturation, 0.6),
    ],
)
def test_colour_changes__equal_torchvision(ours: object, theirs: object, amount: float) -> None:
    picture = Image.fromarray(coloured(50, 50))
    assert callable(ours)
    assert callable(theirs)
    np.testing.assert_array_equal(np.asarray(ours(picture, amount)), np.asarray(theirs(picture, amount)))


def test_strong_view__leaves_global_random_states_alone() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]
    StrongView(PUBLISHED)(coloured(), 1)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), torch_state)
