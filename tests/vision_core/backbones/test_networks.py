from typing import Any, cast

import pytest
import timm
import torch
import torchvision
from torch import nn

from tests.vision_core.feature_maps import feature_maps
from vision_core.assets import lite0_weights
from vision_core.backbones.networks import (
    LITE0_MEAN,
    LITE0_STD,
    backbone_spec,
    build_backbone,
    features,
    lite0_features,
    lite0_imagenet,
)
from vision_core.backbones.settings import BACKBONE_NAMES, BackboneName
from vision_core.errors import ConfigError


def test_lite0_imagenet__fills_every_tensor_of_the_classifier() -> None:
    network = timm.create_model("tf_efficientnet_lite0")
    missing, unexpected = network.load_state_dict(lite0_imagenet(), strict=False)
    assert len(lite0_imagenet()) == 247
    assert unexpected == []
    assert all(name.endswith("num_batches_tracked") for name in missing)


def test_lite0_imagenet__renamed_in_order() -> None:
    stored = torch.load(lite0_weights(), map_location="cpu", weights_only=True)
    tensors = lite0_imagenet()
    for theirs, ours in {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_var": "bn1.running_var",
        "_blocks.15._project_conv.weight": "blocks.6.0.conv_pwl.weight",
        "_fc.bias": "classifier.bias",
    }.items():
        assert torch.equal(stored[theirs], tensors[ours]), ours


def pretrained_features() -> nn.Module:
    network, tensors = lite0_features(), lite0_imagenet()
    network.load_state_dict({name: tensors.get(name, own) for name, own in network.state_dict().items()})
    return network


def test_lite0_features__maps_by_stride() -> None:
    image = torch.full((1, 3, 64, 64), 100.0)
    normalised = (image - torch.tensor(LITE0_MEAN).view(3, 1, 1)) / torch.tensor(LITE0_STD).view(3, 1, 1)
    network = pretrained_features().eval()
    with torch.no_grad():
        maps = network(normalised)
    assert [tuple(each.shape[1:]) for each in maps] == [(24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
    assert all(each.isfinite().all() for each in maps)


def test_lite0_features__pretrained_is_the_shipped_file() -> None:
    pretrained = pretrained_features().state_dict()
    expected = lite0_imagenet()
    assert torch.equal(pretrained["blocks.6.0.conv_pw.weight"], expected["blocks.6.0.conv_pw.weight"])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet10t", 5_007_133),
        ("resnet18", 11_261_157),
        ("resnet50", 23_846_117),
        ("densenet121", 7_122_981),
        ("densenet161", 26_836_485),
        ("lite0", 3_582_373),
        ("convnext_tiny", 27_947_013),
        ("vit_small", 21_729_189),
    ],
)
def test_build_backbone__parameters_with_165_classes(name: BackboneName, size: int) -> None:
    with torch.device("meta"):
        network = build_backbone(name, 165)
    assert sum(parameter.numel() for parameter in network.parameters()) == size


CHANNELS: dict[str, tuple[int, ...]] = {
    "resnet10t": (64, 128, 256, 512),
    "resnet18": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "densenet121": (256, 512, 1024, 1024),
    "densenet161": (384, 768, 2112, 2208),
    "lite0": (24, 40, 112, 320),
    "convnext_tiny": (96, 192, 384, 768),
    "vit_small": (384,),
}


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_backbone_spec__is_what_the_network_does(name: BackboneName) -> None:
    spec = backbone_spec(name)
    network = build_backbone(name, 5).eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        pooled, maps, logits = features(network, image), feature_maps(network, image), network(image)
        rest = network.get_submodule(spec.classifier)(pooled)
    assert pooled.shape == (2, spec.dim)
    assert {stride: tuple(each.shape[1:]) for stride, each in maps.items()} == {
        stride: (channels, 64 // stride, 96 // stride)
        for stride, channels in zip(spec.strides, CHANNELS[name], strict=True)
    }
    assert torch.equal(rest, logits)
    kept = {entry for entry in network.state_dict() if not entry.startswith(f"{spec.classifier}.")}
    assert kept == set(build_backbone(name, 0).state_dict())


@pytest.mark.parametrize(("name", "in_1x1"), [("resnet50", False), ("resnet18", None), ("densenet121", None)])
def test_backbone_spec__stride_layout(name: BackboneName, in_1x1: bool | None) -> None:
    assert backbone_spec(name).stride_in_1x1 is in_1x1
    if name == "resnet50":
        block: Any = build_backbone(name, 2).get_submodule("layer2.0")
        assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


@pytest.mark.parametrize("name", ["resnet10t", "resnet18", "resnet50"])
def test_build_backbone__residual_branches_start_silent(name: BackboneName) -> None:
    last = "bn3" if name == "resnet50" else "bn2"
    blocks = {path: norm for path, norm in build_backbone(name, 3).named_modules() if path.endswith(f".{last}")}
    assert len(blocks) == {"resnet10t": 4, "resnet18": 8, "resnet50": 16}[name]
    assert not any(cast(nn.BatchNorm2d, norm).weight.any() for norm in blocks.values())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_build_backbone__computes_what_torchvision_computes(name: BackboneName) -> None:
    theirs = torchvision.models.get_model(name, weights=None, num_classes=4).eval()
    ours = build_backbone(name, 4).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-5, atol=1e-5)


def test_build_backbone__resnet10t_has_a_deep_stem_and_pooled_shortcuts() -> None:
    shapes = {name: tuple(each.shape) for name, each in build_backbone("resnet10t", 2).state_dict().items()}
    assert [shapes[f"conv1.{place}.weight"][:2] for place in (0, 3, 6)] == [(24, 3), (32, 24), (64, 32)]
    assert shapes["layer2.0.downsample.1.weight"] == (128, 64, 1, 1)
    assert "layer1.0.downsample.1.weight" not in shapes


def test_build_backbone__vit_takes_sizes_that_are_no_multiple_of_its_patches() -> None:
    network = build_backbone("vit_small", 3).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 70, 50)).shape == (1, 3)


def test_build_backbone__unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"'resnet34' is not known\. Give one of resnet10t, "):
        build_backbone("resnet34", 2)


def test_feature_maps__of_lite0_are_those_of_the_detectors() -> None:
    classifier, extractor = build_backbone("lite0", 2).eval(), lite0_features().eval()
    entries = classifier.state_dict()
    extractor.load_state_dict({name: entries[name] for name in extractor.state_dict()})
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(feature_maps(classifier, image).values(), extractor(image), strict=True):
            assert torch.equal(found, expected)
