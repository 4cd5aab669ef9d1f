import shutil
from pathlib import Path

import pytest
import torch

from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.weights.initial import initial_network
from tests.pipelines.ultrasound.tiny import Pair, words
from vision_core.backbones.networks import lite0_imagenet
from vision_core.bundles.bundle import amend
from vision_core.bundles.bundle import load as load_bundle
from vision_core.config.loading import load
from vision_core.errors import CheckpointError, ConfigError


def config(*more: str) -> UltrasoundConfig:
    return load(UltrasoundConfig, None, words(Path("none"), *more))


def test_initial__random_weights_follow_from_the_seed() -> None:
    first, again, other = (initial_network(config(f"train.seed={seed}")).module.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_initial__lite0_has_the_weights_of_imagenet_unless_told_otherwise() -> None:
    known = lite0_imagenet()["conv_stem.weight"]
    start = initial_network(config("method=screen", "screen.network=lite0"))
    assert torch.equal(start.module.state_dict()["network.conv_stem.weight"], known)
    assert "ImageNet" in start.notes[0]
    anew = initial_network(config("method=screen", "screen.network=lite0", "screen.imagenet=false"))
    assert not torch.equal(anew.module.state_dict()["network.conv_stem.weight"], known)


def test_initial__a_bundle_of_this_task_is_continued(pair: Pair) -> None:
    start = initial_network(config(f"source.weights={pair.segment}"))
    weights = load_bundle(pair.segment).tensors
    assert start.path == pair.segment
    assert all(torch.equal(each, weights[name]) for name, each in start.module.state_dict().items())
    assert all(each.requires_grad for each in start.module.parameters())


def test_initial__another_network_is_refused(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the settings ask for .*Set segmenter\.\* as the bundle has it"):
        initial_network(config(f"source.weights={pair.segment}", "segmenter.layers=3"))
    with pytest.raises(CheckpointError, match="holds a 'screen', no segmenter"):
        initial_network(config(f"source.weights={pair.screen}"))
    other = shutil.copytree(pair.screen, tmp_path / "model")
    amend(other, task="pretrain")
    with pytest.raises(ConfigError, match="is a classifier; a screen can start from it"):
        initial_network(config(f"source.weights={other}"))
