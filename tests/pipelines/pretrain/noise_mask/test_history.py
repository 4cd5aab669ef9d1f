from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.pretrain.data.preprocessing import normalise
from pipelines.pretrain.noise_mask.beta import BetaCells
from pipelines.pretrain.noise_mask.history import MaskHistory, recorded_epochs
from pipelines.pretrain.noise_mask.mask import NoiseMask
from pipelines.pretrain.noise_mask.pictures import add_captions, as_grey, as_picture, draw_history
from pipelines.pretrain.noise_mask.policy import NoisePolicy
from tests.pipelines.pretrain.toy import GRID, PIXELS, image_batch, settings
from vision_core.images.reading import read_image


@pytest.mark.parametrize(
    ("epochs", "kept"), [(90, (0, 22, 45, 68, 90)), (4, (0, 1, 2, 3, 4)), (2, (0, 1, 2)), (1, (0, 1))]
)
def test_recorded_epochs__begin_end_and_between(epochs: int, kept: tuple[int, ...]) -> None:
    assert recorded_epochs(epochs) == kept


def history() -> tuple[MaskHistory, NoisePolicy]:
    torch.manual_seed(0)
    return MaskHistory(image_batch(2).images, GRID, epochs=8), NoisePolicy(GRID).train()


def test_record__keeps_fixed_epochs_alone_and_moves_nothing_of_the_policy() -> None:
    found, noise = history()
    before = {name: each.clone() for name, each in noise.state_dict().items()}
    for epoch in range(5):
        found.record(noise, epoch)
    assert list(found.recorded()) == [0, 2, 4]
    assert all(torch.equal(before[name], each) for name, each in noise.state_dict().items())
    assert noise.network.extractor.training
    expected = noise.distributions(found.images)
    assert torch.equal(found.recorded()[4].log_beta, expected.log_beta)


def test_record__leaves_frozen_norms_frozen() -> None:
    found, noise = history()
    norm = noise.network.alpha[1].eval()
    found.record(noise, 0)
    assert not norm.training
    assert noise.network.alpha[4].training


def test_history__comes_back_from_a_checkpoint() -> None:
    found, noise = history()
    found.record(noise, 2)
    again, _ = history()
    again.load_state_dict(found.state_dict(), strict=True)
    assert list(again.recorded()) == [2]


def test_draw_history__a_picture_an_image_with_its_caption(tmp_path: Path) -> None:
    found, noise = history()
    mask = NoiseMask.from_settings(settings().mask, PIXELS)
    assert draw_history(found, mask, tmp_path) == []
    add_captions(tmp_path, {"other.png": "kept"})
    found.record(noise, 0)
    found.record(noise, 8)
    paths = draw_history(found, mask, tmp_path)
    assert [path.name for path in paths] == ["masks-0.png", "masks-1.png"]
    assert read_image(paths[0]).shape == (2 * PIXELS + 4, 3 * PIXELS + 2 * 4, 3)
    told = (tmp_path / "captions.json").read_text()
    assert "after epochs 0, 8" in told and "kept" in told


def test_as_picture__undoes_the_normalisation() -> None:
    pixels = torch.arange(3 * 16).reshape(3, 4, 4).mul(5).to(torch.uint8)
    assert np.array_equal(as_picture(normalise(pixels)), pixels.permute(1, 2, 0).numpy())


def test_as_grey__zero_is_black_one_is_white() -> None:
    cells = BetaCells(log_alpha=torch.full((1, GRID**2), 6.0), log_beta=torch.full((1, GRID**2), -4.0))
    mask = NoiseMask.from_settings(settings().mask, PIXELS)
    assert as_grey(mask(cells.mean())[0]).min() == 255
    assert as_grey(mask(1 - cells.mean())[0]).max() == 0
