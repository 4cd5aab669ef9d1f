from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vision_core.toy_bundle import save_toy
from tests.vision_core.toy_classifier import PREPROCESSING, write_classifier
from vision_core.backbones.bundles import architecture, load_backbone
from vision_core.backbones.networks import features
from vision_core.errors import CheckpointError


@pytest.mark.parametrize("name", ["resnet10t", "lite0", "densenet121", "vit_small"])
def test_load_backbone__gives_the_features_of_the_classifier(tmp_path: Path, name: str) -> None:
    classifier = write_classifier(tmp_path / "model", name)
    found = load_backbone(tmp_path / "model")
    image = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        pooled = found.build().eval()(image)
        assert torch.equal(pooled, features(classifier, image))
    assert pooled.shape == (2, found.spec.dim)
    assert pooled.isfinite().all()
    assert found.preprocessing.mean == (0.3, 0.32, 0.35)


def test_load_backbone__readers_of_the_card_may_have_more_keys(tmp_path: Path) -> None:
    write_classifier(tmp_path / "model", "resnet10t", preprocessing=PREPROCESSING | {"us_correction": False})
    assert load_backbone(tmp_path / "model").preprocessing.channel_order == "rgb"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"preprocessing": {"mean": 0.5}}, r"card\.json, preprocessing\.std: Field required"),
        ({"preprocessing": {"mean": 0.5, "std": 0}}, r"preprocessing\.std\.0: Input should be greater than 0"),
        ({"architecture": architecture("resnet18", 3)}, r"tensors are not those of a resnet18"),
        ({"architecture": architecture("resnet10t", 3) | {"backbone": "vgg"}}, r"holds no backbone"),
        ({"architecture": {"backbone": "resnet10t", "neck": "fpn"}}, r"holds no backbone"),
    ],
)
def test_load_backbone__a_card_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    write_classifier(tmp_path / "model", "resnet10t", **changes)
    with pytest.raises(CheckpointError, match=told):
        load_backbone(tmp_path / "model")


def test_load_backbone__another_kind_of_bundle(tmp_path: Path) -> None:
    save_toy(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"holds no backbone with a classifier\. Give a bundle made by"):
        load_backbone(tmp_path / "model")
