"""Sizes of the classifiers: check N14."""

import pytest
from torch import nn

from pipelines.pretrain.classifier import ResNetName, resnet


@pytest.mark.parametrize(
    ("name", "size"), [("resnet10t", 5_007_133), ("resnet18", 11_261_157), ("resnet50", 23_846_117)]
)
def test_resnet__parameters_with_165_classes(name: ResNetName, size: int) -> None:
    assert sum(parameter.numel() for parameter in resnet(name, 165).parameters()) == size


@pytest.mark.parametrize("name", ["resnet10t", "resnet18", "resnet50"])
def test_resnet__residual_branches_start_silent(name: ResNetName) -> None:
    norms = dict(resnet(name, 3).named_modules())
    last = "bn3" if name == "resnet50" else "bn2"
    blocks = [norm for path, norm in norms.items() if path.startswith("layer") and path.endswith(last)]
    assert len(blocks) == {"resnet10t": 4, "resnet18": 8, "resnet50": 16}[name]
    assert all(isinstance(norm, nn.BatchNorm2d) and not norm.weight.any() for norm in blocks)


def test_resnet__convolutions_are_kaiming_normal_by_fan_out() -> None:
    stem = resnet("resnet18", 3).get_parameter("conv1.weight")  # 64 filters of 7 by 7
    assert stem.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


def test_resnet__entry_names_are_those_of_published_weights() -> None:
    names = resnet("resnet50", 3).state_dict().keys()
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "layer4.2.bn3.running_var", "fc.bias"} <= names
