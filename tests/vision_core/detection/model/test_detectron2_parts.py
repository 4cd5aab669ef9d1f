import pytest
import torch

from vision_core.detection.model.detectron2_parts import Lite0, build_parts, sample_labels
from vision_core.detection.settings import DetectorSettings
from vision_core.errors import ConfigError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sample_labels__share_of_positives_and_ignored() -> None:
    labels = torch.tensor([1] * 10 + [0] * 50 + [-1] * 40)
    positive, negative = sample_labels(labels, 16, 0.25, 0, generator())
    assert len(positive) == 4
    assert len(negative) == 12
    assert (labels[positive] == 1).all()
    assert (labels[negative] == 0).all()
    assert len(set(negative.tolist())) == 12


def test_sample_labels__too_few_positives_are_filled_with_negatives() -> None:
    labels = torch.tensor([2] + [7] * 50)
    positive, negative = sample_labels(labels, 16, 0.5, 7, generator())
    assert positive.tolist() == [0]
    assert len(negative) == 15


def test_sample_labels__fewer_than_asked() -> None:
    positive, negative = sample_labels(torch.tensor([7, -1, 7]), 16, 0.5, 7, generator())
    assert len(positive) == 0
    assert sorted(negative.tolist()) == [0, 2]


def test_sample_labels__uniform_over_the_negatives() -> None:
    counts = torch.zeros(20)
    for seed in range(2000):
        counts[sample_labels(torch.zeros(20), 5, 0.5, 0, generator(seed))[1]] += 1
    assert (counts / 2000 - 0.25).abs().max() < 0.04


@pytest.mark.parametrize("backbone", ["r18", "lite0"])
def test_build_parts__c4_needs_a_bottleneck_network(backbone: str) -> None:
    settings = DetectorSettings.model_validate({"backbone": backbone})
    with pytest.raises(ConfigError, match=f"'{backbone}' has no c4 head"):
        build_parts(settings, 3)


def test_build_parts__anchor_lists_must_match_the_levels() -> None:
    settings = DetectorSettings(backbone="r18", neck="fpn", anchor_sizes=((16,), (32,)))
    with pytest.raises(ConfigError, match="2 lists for 5 feature levels"):
        build_parts(settings, 3)


@pytest.mark.parametrize(("freeze_at", "first_trained"), [(0, "conv_stem"), (1, "blocks.1"), (2, "blocks.2")])
def test_lite0__freezes_the_first_stages(freeze_at: int, first_trained: str) -> None:
    names = [name for name, parameter in Lite0(freeze_at).network.named_parameters() if parameter.requires_grad]
    assert names[0].startswith(first_trained)


def test_lite0__strides_channels_and_frozen_norms_with_activation() -> None:
    network = Lite0(0)
    maps = network(torch.randn(1, 3, 64, 96, generator=generator()))
    assert [tuple(each.shape[1:]) for each in maps.values()] == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]
    kinds = {type(module).__name__ for module in network.modules()}
    assert "FrozenBatchNormAct2d" in kinds
    assert not any("BatchNorm" in kind for kind in kinds - {"FrozenBatchNormAct2d"})
