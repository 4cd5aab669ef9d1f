import pytest
import torch

from pipelines.pretrain.weights.keymaps import KeyMap, map_keys, sequential_name
from vision_core.backbones.networks import BACKBONES

SPEC = BACKBONES["resnet18"]
OWN = {"conv1.weight": (4, 3), "bn1.bias": (4,), "bn1.num_batches_tracked": (), "layer1.0.conv1.weight": (4, 4)}


def test_map_keys__sequence_head_and_share() -> None:
    found = {
        "module.backbone.0.weight": torch.zeros(4, 3),
        "module.backbone.1.bias": torch.zeros(4),
        "module.backbone.4.0.conv1.weight": torch.zeros(4, 5),
        "module.linear.weight": torch.zeros(7, SPEC.dim),
        "module.linear.bias": torch.zeros(7),
    }
    keys = map_keys(found, OWN, SPEC)
    assert keys.ours["module.backbone.1.bias"] == "bn1.bias"
    assert keys.ours["module.linear.weight"] == "fc.weight"
    assert keys.head == 7
    assert keys.share == pytest.approx(2 / 3)
    assert keys.missing == ("layer1.0.conv1.weight",)
    assert keys.unused == ("module.backbone.4.0.conv1.weight",)


def test_lines__one_for_each_pair_of_parts_then_what_found_none() -> None:
    ours = {"b.4.0.bn1.bias": "layer1.0.bn1.bias", "b.4.1.bn1.bias": "layer1.1.bn1.bias", "fc.bias": "fc.bias"}
    keys = KeyMap(ours=ours, unused=("x",), missing=("y",), head=2, share=0.99)
    assert keys.lines() == [
        "key map: 'b.4' -> 'layer1' (2 tensors)",
        "key map: 'fc' -> 'fc' (1 tensors)",
        "unused: 'x'",
        "missing: 'y'",
    ]


def test_sequential_name__heads_and_networks_without_a_sequence_keep_theirs() -> None:
    assert sequential_name("layer4.1.bn2.weight", SPEC) == "backbone.7.1.bn2.weight"
    assert sequential_name("fc.weight", SPEC) == "fc.weight"
    assert sequential_name("features.conv0.weight", BACKBONES["densenet121"]) == "backbone.0.conv0.weight"
    assert sequential_name("conv1.0.weight", BACKBONES["resnet10t"]) == "conv1.0.weight"
