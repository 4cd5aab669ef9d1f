"""Released weights come in whole, under our names, or not at all."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from pipelines.pretrain.weights.keymaps import sequential_name
from pipelines.pretrain.weights.released import read_released
from vision_core.backbones.networks import BACKBONES, build_backbone
from vision_core.errors import CheckpointError

Change = Callable[[str], str]
LARGER = ("lite0", "vit_small", "convnext_tiny")


def written(path: Path, tensors: dict[str, Tensor], rename: Change = str, container: str = "") -> Path:
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    torch.save({container: renamed, "epoch": 3} if container else renamed, path)
    return path


def uneven(name: str, num_classes: int) -> dict[str, Tensor]:
    torch.manual_seed(5)
    tensors = build_backbone(name, num_classes).state_dict()
    return {key: each + torch.rand_like(each) if each.is_floating_point() else each for key, each in tensors.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert name.endswith("num_batches_tracked") or torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", ["resnet18", "densenet121", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_read_released__networks_cut_into_a_sequence_as_radimagenet_has_them(name: str, tmp_path: Path) -> None:
    tensors = uneven(name, 0)
    spec = BACKBONES[name]  # type: ignore[index]
    path = written(tmp_path / "weights.pt", tensors, lambda each: sequential_name(each, spec))
    assert not set(torch.load(path, weights_only=True)) & set(tensors)
    found = read_released(path)
    assert (found.backbone, found.classes) == (name, ())
    assert_same(found.network.state_dict(), tensors)
    assert any(
        line.startswith(f"key map: 'backbone.0' -> '{next(iter(tensors)).split('.')[0]}' (") for line in found.notes
    )


@pytest.mark.parametrize("name", ["resnet10t", *(pytest.param(each, marks=pytest.mark.slow) for each in LARGER)])
def test_read_released__our_own_names(name: str, tmp_path: Path) -> None:
    tensors = uneven(name, 3)
    found = read_released(written(tmp_path / "weights.pth", tensors), ("a", "b", "c"))
    assert (found.backbone, found.classes) == (name, ("a", "b", "c"))
    assert_same(found.network.state_dict(), tensors)


@pytest.mark.parametrize(
    ("rename", "container"),
    [
        (lambda name: f"_orig_mod.{name}", "model"),
        (lambda name: f"module._orig_mod.{name}", "state_dict"),
        (lambda name: f"model.{name.replace('fc.', 'last_linear.')}", ""),
    ],
    ids=["compiled", "compiled and wrapped", "another head"],
)
def test_read_released__wrappers_go(rename: Change, container: str, tmp_path: Path) -> None:
    tensors = uneven("resnet18", 4)
    found = read_released(written(tmp_path / "checkpoint.pth", tensors, rename, container))
    assert found.classes == ("class_0", "class_1", "class_2", "class_3")
    assert_same(found.network.state_dict(), tensors)
    assert any("a head of 4 classes; their names are not in the file" in line for line in found.notes)


def test_read_released__entries_without_a_partner_are_named(tmp_path: Path) -> None:
    tensors = uneven("resnet18", 0) | {"extra.weight": torch.ones(2)}
    notes = read_released(written(tmp_path / "weights.pth", tensors)).notes
    assert "unused: 'extra.weight'" in notes


@pytest.mark.parametrize("sequence", [False, True])
def test_read_released__what_would_stay_random_is_refused(sequence: bool, tmp_path: Path) -> None:
    """One entry that is missing, or a first layer for one channel under the name of a converted network."""
    tensors = uneven("resnet18", 0)
    lost = "conv1.weight" if sequence else "layer4.1.bn2.bias"
    if sequence:
        tensors["backbone.0.weight"] = tensors["conv1.weight"][:, :1]
    del tensors[lost]
    with pytest.raises(CheckpointError, match=rf"lacks 1 of the tensors of a resnet18, first '{lost}'"):
        read_released(written(tmp_path / "weights.pth", tensors))


def test_read_released__less_than_95_percent_is_refused(tmp_path: Path) -> None:
    tensors = {name: each for name, each in uneven("resnet18", 0).items() if not name.startswith("layer4.1")}
    with pytest.raises(CheckpointError, match=r"has '90%' of the tensors of resnet18.*95% are needed.*'layer4\.1\."):
        read_released(written(tmp_path / "weights.pth", tensors))


def test_read_released__another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Known networks: resnet10t, resnet18"):
        read_released(written(tmp_path / "weights.pth", {"stem.weight": torch.ones(3, 3)}))


def test_read_released__extreme_statistics_are_warned_of(tmp_path: Path) -> None:
    tensors = uneven("resnet18", 0)
    tensors["layer2.0.bn1.running_var"][3] = 56296.0
    notes = read_released(written(tmp_path / "weights.pth", tensors)).notes
    [warning] = [line for line in notes if line.startswith("warning:")]
    assert "'layer2.0.bn1.running_var' holds a running variance of 56,296 (1 layers" in warning
    assert "averaging.reestimate_norms=200" in warning


def test_read_released__nan_is_refused(tmp_path: Path) -> None:
    tensors = uneven("resnet18", 0)
    tensors["layer1.0.conv1.weight"][0] = torch.nan
    with pytest.raises(CheckpointError, match=r"NaN or infinity in 1 tensors, first 'layer1\.0\.conv1\.weight'"):
        read_released(written(tmp_path / "weights.pth", tensors))


def test_read_released__another_number_of_classes_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "weights.pth", uneven("resnet18", 4))
    with pytest.raises(CheckpointError, match=r"has 4 rows in its head, data\.classes lists 2"):
        read_released(path, ("a", "b"))


def test_read_released__a_deeper_network_that_holds_ours_is_refused(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet34(num_classes=4).state_dict()
    with pytest.raises(CheckpointError, match=r"'100%' of the tensors of resnet18.* of its \d+ have no place there"):
        read_released(written(tmp_path / "weights.pth", theirs))


def test_read_released__another_number_of_channels_is_refused(tmp_path: Path) -> None:
    tensors = uneven("resnet18", 4)
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :1]
    path = written(tmp_path / "weights.pth", tensors, lambda name: f"module.{name}")
    with pytest.raises(CheckpointError, match=r"'module\.conv1\.weight' has the shape \(64, 1, 7, 7\), in a"):
        read_released(path)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_read_released__monai_networks_answer_as_there(name: str, tmp_path: Path) -> None:
    from monai.networks.nets import resnet  # here, as every process of pytest would take a second for it

    build = {"resnet18": resnet.resnet18, "resnet50": resnet.resnet50}[name]
    theirs = build(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, bias_downsample=False, num_classes=4).eval()
    found = read_released(written(tmp_path / "weights.pth", theirs.state_dict()))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found.network(image), theirs(image))


def test_read_released__a_dense_network_of_monai_answers_as_there(tmp_path: Path) -> None:
    from monai.networks.nets.densenet import DenseNet121

    theirs = DenseNet121(spatial_dims=2, in_channels=3, out_channels=4).eval()
    found = read_released(written(tmp_path / "weights.pth", theirs.state_dict()))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found.network(image), theirs(image), rtol=1e-4, atol=1e-5)


def test_read_released__a_dense_network_of_the_oldest_torchvision(tmp_path: Path) -> None:
    tensors = uneven("densenet121", 3)
    path = written(tmp_path / "weights.pth", tensors, lambda name: re.sub(r"(r\d+\.(?:norm|conv))(\d)", r"\1.\2", name))
    assert "features.denseblock1.denselayer1.norm.1.weight" in torch.load(path, weights_only=True)
    assert_same(read_released(path).network.state_dict(), tensors)


def test_read_released__a_head_without_a_bias_gets_zeros_and_says_so(tmp_path: Path) -> None:
    tensors = uneven("resnet18", 4)
    del tensors["fc.bias"]
    found = read_released(written(tmp_path / "weights.pth", tensors))
    assert found.network.state_dict()["fc.bias"].tolist() == [0.0] * 4
    assert "the head has no bias: 'fc.bias' is set to 0" in found.notes


def test_read_released__two_networks_in_one_file_are_refused(tmp_path: Path) -> None:
    student, teacher = uneven("resnet18", 4), uneven("resnet18", 4)
    both = {f"model.{name}": each for name, each in student.items()}
    path = written(tmp_path / "weights.pth", both | {f"encoder.{name}": each for name, each in teacher.items()})
    with pytest.raises(CheckpointError, match=r"two networks, under 'model\.' and 'encoder\.': .*conv1\.weight' are"):
        read_released(path)


def test_read_released__two_heads_of_one_name_are_refused(tmp_path: Path) -> None:
    tensors = uneven("resnet18", 4) | {"module.fc.weight": torch.ones(7, 512), "module.fc.bias": torch.ones(7)}
    with pytest.raises(CheckpointError, match=r"two networks, under '' and 'module\.': 'fc\.weight' and"):
        read_released(written(tmp_path / "weights.pth", tensors))


def test_read_released__a_bias_of_another_head_is_refused(tmp_path: Path) -> None:
    tensors = uneven("resnet18", 4) | {"fc.bias": torch.zeros(5)}
    with pytest.raises(
        CheckpointError, match=r"'fc\.bias' has the shape \(5,\), 'fc\.weight' \(4, 512\): they are not"
    ):
        read_released(written(tmp_path / "weights.pth", tensors))


def test_released__quantised_weights_without_scales_are_refused(tmp_path: Path) -> None:
    tensors = build_backbone("resnet18", 2).state_dict()
    whole = {name: each.to(torch.int8) if each.ndim > 1 else each for name, each in tensors.items()}
    torch.save(whole, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"21 tensors, first 'conv1\.weight', hold 'int8' and no scales"):
        read_released(tmp_path / "a.pth")


def test_released__an_average_by_flat_names_is_taken_and_said(tmp_path: Path) -> None:
    network = build_backbone("resnet18", 2)
    flat = {f"ema_{name.replace('.', '_')}": each.detach() + 1 for name, each in network.named_parameters()}
    own = network.state_dict()
    torch.save({"state_dict": {**own, **flat}}, tmp_path / "a.pth")
    found = read_released(tmp_path / "a.pth")
    assert "weights: took 'state_dict.ema' (the average) of the sets 'state_dict', 'state_dict.ema'" in found.notes[0]
    assert torch.equal(found.network.state_dict()["conv1.weight"], own["conv1.weight"] + 1)
    found = read_released(tmp_path / "a.pth", weights_key="state_dict")
    assert torch.equal(found.network.state_dict()["conv1.weight"], own["conv1.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>log in</html>", "is a web page, not weights"),
        (
            b"version https://git-lfs.github.com/spec/v1\nsize 44800000\n",
            "is a Git LFS pointer, not the weights of '44.8",
        ),
    ],
)
def test_released__what_is_no_weights_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_released(tmp_path / "a.pth")


def test_released__half_a_file_is_named_with_its_size(tmp_path: Path) -> None:
    torch.save(build_backbone("resnet18", 2).state_dict(), tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"breaks off: '22\.\d' of '44\.\d' MB are there"):
        read_released(tmp_path / "a.pth")
