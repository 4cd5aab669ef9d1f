import math
from typing import Literal

import pytest
import torch

from pipelines.ultrasound.config import BEDSIDE, ScreenNetwork
from pipelines.ultrasound.screening.screen import Screen, fold_norms
from vision_core.backbones.networks import lite0_imagenet
from vision_core.errors import ConfigError


def test_screen__published_number_of_parameters_and_any_size() -> None:
    screen = Screen(ScreenNetwork()).eval()
    assert sum(each.numel() for each in screen.parameters()) == 26_464_801
    for size in ((58, 52), (29, 29), (128, 96)):
        with torch.inference_mode():
            found = screen(torch.rand(2, 1, *size)).sigmoid()
        assert found.shape == (2,)
        assert ((found > 0) & (found < 1)).all()


def test_screen__published_input_is_normalised_by_the_grey_of_imagenet() -> None:
    screen = Screen(ScreenNetwork()).eval()
    frames = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        expected = screen.network((frames - 0.449) / 0.226)[:, 0]
        assert torch.allclose(screen(frames), expected)


def test_screen__bedside_one_takes_the_weights_of_imagenet() -> None:
    screen = Screen(BEDSIDE).eval()
    weights = {name: each for name, each in lite0_imagenet().items() if not name.startswith("classifier")}
    missing = screen.network.load_state_dict(weights, strict=False).missing_keys
    assert {name for name in missing if "num_batches" not in name} == {"classifier.weight", "classifier.bias"}
    frames = torch.rand(1, 1, 128, 128)
    with torch.inference_mode():
        expected = screen.network((frames.expand(-1, 3, -1, -1) * 255 - 127) / 128)[:, 0]
        assert torch.allclose(screen(frames), expected, atol=1e-5)


def test_screen__first_logits_are_near_even_odds() -> None:
    screen = Screen(BEDSIDE)
    with torch.inference_mode():
        assert screen(torch.rand(4, 1, 64, 64)).abs().max() < 1


@pytest.mark.parametrize(
    ("settings", "width"), [(ScreenNetwork(), 2 * (192 + 384 + 1056)), (BEDSIDE, 2 * (16 + 24 + 40 + 112))]
)
def test_screen__features_come_with_the_same_logits(settings: ScreenNetwork, width: int) -> None:
    screen, frames = Screen(settings).eval(), torch.rand(2, 1, 32, 40)
    with torch.inference_mode():
        logits, features = screen.with_features(frames)
        assert features.shape == (2, width)
        assert torch.allclose(logits, screen(frames), atol=1e-6)


def test_screen__small_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match="29 pixels a side, found '28 x 40'"):
        Screen(BEDSIDE)(torch.rand(1, 1, 28, 40))


def test_screen__loss_on_logits_is_the_published_one() -> None:
    probabilities = torch.tensor([0.92, 0.15, 0.40, 0.05], dtype=torch.float64)
    labels = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(probabilities.logit(), labels)
    assert loss.item() == pytest.approx(0.303371, abs=1e-6)
    assert math.isfinite(torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(900.0), torch.tensor(0.0)))


@pytest.mark.parametrize("network", ["lite0", "resnet10t", "densenet161"])
def test_fold_norms__leaves_logits_and_features(network: Literal["lite0", "resnet10t", "densenet161"]) -> None:
    torch.manual_seed(0)
    screen = Screen(ScreenNetwork(network=network)).eval()
    for each in screen.modules():
        if isinstance(each, torch.nn.BatchNorm2d):
            each.running_mean, each.running_var = (
                torch.randn(each.num_features) / 9,
                torch.rand(each.num_features) + 0.5,
            )
    frames = torch.rand(2, 1, 32, 40)
    with torch.inference_mode():
        logits, features = screen.with_features(frames)
        norms = sum(isinstance(each, torch.nn.BatchNorm2d) for each in screen.modules())
        fold_norms(screen.network)
        left = sum(isinstance(each, torch.nn.BatchNorm2d) for each in screen.modules())
        folded = screen.with_features(frames)
    assert left < 0.6 * norms  # DenseNet has half of them before its convolutions
    assert torch.allclose(folded[0], logits, atol=1e-4)
    assert torch.allclose(folded[1], features, atol=1e-3, rtol=1e-3)
