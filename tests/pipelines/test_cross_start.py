"""A classifier that pretraining has made starts every other task that exists, by that task's own command."""

from pathlib import Path

import pytest
import torch

from pipelines.pretrain.weights.bundles import load_classifier
from pipelines.sfod.__main__ import main as sfod
from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.screening.screen import Screen
from pipelines.ultrasound.weights.initial import initial_network
from pipelines.wsi.__main__ import main as wsi
from tests.pipelines.pretrain import tiny as pretrain_tiny
from tests.pipelines.sfod import tiny as sfod_tiny
from tests.pipelines.ultrasound import tiny as ultrasound_tiny
from tests.pipelines.wsi import tiny as wsi_tiny
from tests.vision_core.detection.synthetic import make_voc
from tests.vision_core.feature_maps import feature_maps
from vision_core.backbones.networks import features
from vision_core.bundles.bundle import load, read_card
from vision_core.config.loading import load as load_config
from vision_core.detection.weights.bundles import load_detector
from vision_core.slides.encoders.networks import build_encoder
from vision_core.slides.settings import EncoderSettings


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a ResNet-18 that has seen a few pictures under the noise mask."""
    folder = tmp_path_factory.mktemp("pretrain")
    data = pretrain_tiny.make_folders(folder / "data")
    assert pretrain_tiny.train(folder / "run", data, "classifier=resnet18", "train.epochs=1") == 0
    return folder / "run" / "model"


def test_sfod__the_detector_has_the_classifiers_backbone_and_input(pretrained: Path, tmp_path: Path) -> None:
    data = make_voc(tmp_path / "data", count=4)
    words = [*sfod_tiny.SUPERVISED, "detector.freeze_at=5", "train.max_steps=1", f"source.weights={pretrained}"]
    assert sfod(["train", "--out", str(tmp_path / "run"), f"data.root={data}", *words]) == 0
    detector, card = load_detector(tmp_path / "run" / "model", "sfod")
    found = load_classifier(pretrained)
    assert card.parent == found.card.hashes["weights.safetensors"]
    assert (detector.settings.backbone, detector.settings.channel_order) == ("r18", "rgb")
    assert detector.settings.pixel_mean == pytest.approx([255 * each for each in found.preprocessing.mean])
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = feature_maps(found.network, _normalised(image[None], pretrained))
        maps = detector.backbone.bottom_up((image - detector.pixel_mean)[None] / detector.pixel_std)
    for level, each in zip(("res2", "res3", "res4", "res5"), expected.values(), strict=True):
        torch.testing.assert_close(maps[level], each, rtol=1e-4, atol=1e-4 * float(each.abs().max()))


def test_sfod__adaptation_sends_to_source_training(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_voc(tmp_path / "data", count=4)
    words = [f"data.root={data}", f"source.weights={pretrained}", "method=mt"]
    assert sfod(["train", "--out", str(tmp_path / "run"), *words]) == 2
    assert f"method=source source.weights={pretrained}" in capsys.readouterr().err


def test_wsi__the_encoder_gives_the_classifiers_features(pretrained: Path) -> None:
    encoder = build_encoder(EncoderSettings(name="bundle", weights=pretrained, input_px=64), precision="off")
    tiles = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = features(load_classifier(pretrained).network, _normalised(tiles.permute(0, 3, 1, 2), pretrained))
    torch.testing.assert_close(encoder.encode(tiles), expected, rtol=1e-4, atol=1e-5)


def test_wsi__slides_are_classified_from_its_features(pretrained: Path, tmp_path: Path) -> None:
    data = wsi_tiny.make_slides(tmp_path / "data")
    words = [*wsi_tiny.TASK.words(data), "encoder.name=bundle", f"encoder.weights={pretrained}", "train.epochs=1"]
    assert wsi(["train", "--out", str(tmp_path / "run"), *words]) == 0
    card = read_card(tmp_path / "run" / "model", "wsi")
    assert card.architecture["feature_dim"] == 512
    assert card.preprocessing["encoder"]["weights"] == load(pretrained).card.hashes["weights.safetensors"]


def test_ultrasound__the_screen_has_the_classifiers_backbone_and_input(pretrained: Path, tmp_path: Path) -> None:
    data = ultrasound_tiny.make_h5(tmp_path / "data")
    words = ["method=screen", "screen.network=resnet18", f"source.weights={pretrained}", "train.max_steps=1"]
    assert ultrasound_tiny.train(tmp_path / "run", data, *words, "data.eval_split=null") == 0
    card = read_card(tmp_path / "run" / "model", "ultrasound")
    found = load_classifier(pretrained)
    assert card.parent == found.card.hashes["weights.safetensors"]
    screen = initial_network(load_config(UltrasoundConfig, None, ultrasound_tiny.words(data, *words))).module.eval()
    assert isinstance(screen, Screen)
    frames = torch.rand(2, 1, 48, 40)
    with torch.no_grad():
        expected = features(found.network, _normalised(frames.expand(-1, 3, -1, -1) * 255, pretrained))
        inner = features(screen.network, (frames - screen.mean) / screen.std)
    torch.testing.assert_close(inner, expected, rtol=1e-4, atol=1e-5)


def _normalised(images: torch.Tensor, bundle: Path) -> torch.Tensor:
    rules = load_classifier(bundle).preprocessing
    assert rules.values == "0 to 1"
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (rules.mean, rules.std))
    return (images / 255 - mean) / std
