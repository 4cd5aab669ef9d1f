from pathlib import Path

import pytest
import torch

from tests.vision_core.feature_maps import feature_maps
from tests.vision_core.toy_classifier import PREPROCESSING, write_classifier
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.from_classifier import detector_from_classifier, vgg16_names
from vision_core.errors import CheckpointError, ConfigError

SMALL = DetectorSettings(
    backbone="r101", neck="fpn", fpn_channels=8, head_channels=16, pool_size=7, freeze_at=0, stride_in_1x1=True
)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "lite0"])
def test_start__maps_of_the_detector_are_those_of_the_classifier(tmp_path: Path, name: str, order: str) -> None:
    classifier = write_classifier(
        tmp_path / "model", name, preprocessing=PREPROCESSING | {"channel_order": order, "values": "0 to 1"}
    )
    detector, notes = detector_from_classifier(tmp_path / "model", ("a", "b"), SMALL)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)  # RGB
    with torch.no_grad():
        seen = (image.flip(0) if order == "bgr" else image) / 255
        mean, std = (torch.tensor(PREPROCESSING[part]).view(3, 1, 1) for part in ("mean", "std"))
        expected = feature_maps(classifier, ((seen - mean) / std)[None])
        found = detector.backbone.bottom_up(detector._normalise(image)[None])
    for level, each in zip(("res2", "res3", "res4", "res5"), expected.values(), strict=True):
        torch.testing.assert_close(found[level], each, rtol=1e-4, atol=1e-4 * float(each.abs().max()))
    assert detector.settings.stride_in_1x1 is False
    assert "RGB" in notes[1] if order == "rgb" else "BGR" in notes[1]


def test_start__c4_has_the_last_stage_in_its_head(tmp_path: Path) -> None:
    classifier = write_classifier(tmp_path / "model", "resnet50")
    settings = DetectorSettings(neck="c4", freeze_at=0)
    detector, _ = detector_from_classifier(tmp_path / "model", ("a", "b"), settings)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = feature_maps(classifier, image)
        inner = detector.backbone(image)["res4"]
        torch.testing.assert_close(inner, expected[16], rtol=1e-4, atol=1e-4 * float(expected[16].abs().max()))
        outer = detector.roi_heads.res5(inner)
    torch.testing.assert_close(outer, expected[32], rtol=1e-4, atol=1e-4 * float(expected[32].abs().max()))


def test_start__without_settings_a_pyramid_that_detects(tmp_path: Path) -> None:
    write_classifier(tmp_path / "model", "resnet18")
    detector, notes = detector_from_classifier(tmp_path / "model", ("a", "b"), None)
    assert (detector.settings.backbone, detector.settings.neck) == ("r18", "fpn")
    assert "resnet18 of pretrain/toy/" in notes[0]
    assert "100 tensors" in notes[0]
    with torch.no_grad():
        [found] = detector.eval().detect(detector.features([torch.zeros(3, 64, 64)]))
    assert found.boxes.shape[1] == 4


def test_start__every_tensor_of_the_backbone_is_the_bundles(tmp_path: Path) -> None:
    write_classifier(tmp_path / "model", "resnet18")
    first, second = (_seeded(tmp_path / "model", seed) for seed in (0, 1))
    differing = {name for name, tensor in first.items() if not torch.equal(tensor, second[name])}
    assert differing
    assert not any(name.startswith("backbone.bottom_up.") for name in differing)


@pytest.mark.parametrize("name", ["resnet10t", "densenet121", "vit_small"])
def test_start__backbones_without_a_detectors_form(tmp_path: Path, name: str) -> None:
    write_classifier(tmp_path / "model", name)
    with pytest.raises(CheckpointError, match=rf"holds a {name}, .* Give a bundle of resnet18, resnet50, lite0"):
        detector_from_classifier(tmp_path / "model", ("a",), None)


def test_start__a_neck_that_the_backbone_does_not_have(tmp_path: Path) -> None:
    write_classifier(tmp_path / "model", "resnet18")
    with pytest.raises(ConfigError, match=r"'r18' has no c4 head\. Use r50 or r101, or set detector\.neck=fpn"):
        detector_from_classifier(tmp_path / "model", ("a",), DetectorSettings(neck="c4"))


def _seeded(path: Path, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    detector: Detector = detector_from_classifier(path, ("a",), SMALL)[0]
    return detector.state_dict()


def test_vgg16_names__of_torchvision_and_of_caffe() -> None:
    one = torch.ones(1)
    torchvision_names = ("features.0.weight", "features.28.bias", "classifier.0.weight", "classifier.3.bias")
    caffe_names = ("conv1_1_w", "conv5_3_b", "fc6_w", "fc7_b")
    found = [list(vgg16_names(dict.fromkeys(names, one))) for names in (torchvision_names, caffe_names)]
    assert found[0] == found[1]
    assert found[0] == [
        "backbone.features.0.weight",
        "backbone.features.28.bias",
        "roi_heads.box_head.fc1.weight",
        "roi_heads.box_head.fc2.bias",
    ]
    assert list(vgg16_names({"conv3_2.weight": one, "classifier.6.weight": one})) == [
        "backbone.features.12.weight",
        "classifier.6.weight",
    ]
