"""Enlargement, blur and blending against checks N5, N6 and N7."""

import pytest
import torch
from torch.nn.functional import interpolate
from torchvision.transforms.functional import gaussian_blur

from pipelines.pretrain.config import Mask
from pipelines.pretrain.noise_mask.mask import NoiseMask, blend, gaussian_weights, interpolation_matrix
from tests.pipelines.pretrain.example import close
from vision_core.errors import ConfigError


def _nearest(grid: int, image_px: int) -> list[int]:
    return interpolation_matrix(grid, 1, 6.0, image_px).argmax(dim=1).tolist()


def test_interpolation_matrix__cell_of_each_pixel() -> None:
    assert _nearest(2, 5) == [0, 0, 0, 1, 1]
    assert _nearest(4, 7) == [0, 0, 1, 1, 2, 2, 3]
    assert _nearest(64, 224)[:12] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3]
    assert _nearest(9, 9) == list(range(9))


def test_gaussian_weights__by_hand() -> None:
    close(gaussian_weights(13, 6.0)[:7], [0.055865, 0.065086, 0.073752, 0.081282, 0.087128, 0.090835, 0.092105])
    close(gaussian_weights(5, 2.0)[:3], [0.152469, 0.221841, 0.251379])
    weights = gaussian_weights(13, 6.0)
    assert torch.equal(weights, weights.flip(0))


def test_mask__by_hand() -> None:
    mask = NoiseMask(grid=2, kernel=5, sigma=2, image_px=6)(torch.tensor([[0.1, 0.9, 0.6, 0.3]]))
    assert mask.shape == (1, 1, 6, 6)
    close(mask[0, 0, 0], [0.1, 0.221975, 0.399448, 0.600552, 0.778025, 0.9])
    close(mask[0, 0, 2], [0.287155, 0.346353, 0.432484, 0.530085, 0.616216, 0.675414])
    close(mask[0, 0, 5], [0.6, 0.554259, 0.487707, 0.412293, 0.345741, 0.3])
    assert mask.sum().item() == pytest.approx(17.1, abs=1e-5)


@pytest.mark.parametrize(("grid", "image_px", "kernel", "sigma"), [(64, 224, 13, 6.0), (5, 12, 7, 1.3), (8, 8, 15, 3)])
def test_mask__is_nearest_enlargement_and_blur(grid: int, image_px: int, kernel: int, sigma: float) -> None:
    cells = torch.rand(2, grid * grid)
    enlarged = interpolate(cells.view(2, 1, grid, grid), size=(image_px, image_px), mode="nearest")
    mask = NoiseMask(grid=grid, kernel=kernel, sigma=sigma, image_px=image_px)(cells)
    torch.testing.assert_close(mask, gaussian_blur(enlarged, [kernel, kernel], [sigma, sigma]), atol=1e-6, rtol=0)


def test_mask__published_blur_narrows_the_spread() -> None:
    concentration = torch.full((4, 4096), 1.6)
    cells = torch.distributions.Beta(concentration, concentration).sample()
    assert cells.std().item() == pytest.approx(0.244, rel=0.02)
    assert NoiseMask()(cells).std().item() == pytest.approx(0.067, rel=0.05)


def test_mask__stays_in_single_precision_under_autocast() -> None:
    masks, cells = NoiseMask(grid=4, kernel=3, image_px=16), torch.rand(1, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mask = masks(cells)
    assert torch.equal(mask, masks(cells))


def test_mask__leaves_checkpoints_alone() -> None:
    assert not NoiseMask().state_dict()


def test_blend__one_mask_for_all_channels() -> None:
    image = torch.tensor([[1.0, -2], [0.5, 3]]).expand(1, 3, 2, 2)
    mask = torch.tensor([[0.5, 0.25], [1, 0.1]]).view(1, 1, 2, 2)
    for channel in blend(image, mask)[0]:
        close(channel, [[0.5, -0.5], [0.5, 0.3]])


def test_blend__mask_of_ones_changes_no_bit() -> None:
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(blend(images, torch.ones(2, 1, 16, 16)), images)


def test_mask__what_does_not_fit_is_refused_together() -> None:
    with pytest.raises(ConfigError) as caught:
        NoiseMask(grid=64, kernel=33, image_px=16)
    assert len(caught.value.problems) == 2
    assert "mask.grid '64'" in caught.value.problems[0]
    assert "mask.kernel '33'" in caught.value.problems[1]
    NoiseMask(grid=16, kernel=31, image_px=16)  # just fits


def test_mask__defaults_are_those_of_the_configuration() -> None:
    cells = torch.rand(1, 64 * 64)
    assert torch.equal(NoiseMask()(cells), NoiseMask.from_settings(Mask(), 224)(cells))


def test_mask__an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="should be odd"):
        NoiseMask(kernel=4)
