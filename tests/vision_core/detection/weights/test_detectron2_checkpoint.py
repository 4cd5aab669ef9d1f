import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vision_core.backbones.networks import lite0_imagenet
from vision_core.detection.model.detector import Detector
from vision_core.detection.model.detectron2_parts import detectron2_config
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.detectron2_checkpoint import import_detector, load_backbone, pick_network
from vision_core.errors import CheckpointError

CLASSES = ("car", "bus", "train")
SETTINGS = DetectorSettings(
    backbone="r18", neck="fpn", fpn_channels=8, head_channels=16, pool_size=7, stride_in_1x1=False, freeze_at=0
)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Detector(SETTINGS, CLASSES).state_dict()


def write(folder: Path, tensors: dict[str, Tensor], settings: DetectorSettings = SETTINGS) -> Path:
    (folder / "config.yaml").write_text(detectron2_config(settings, len(CLASSES)).dump())
    torch.save({"model": tensors, "iteration": 10}, folder / "model_final.pth")
    return folder / "model_final.pth"


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def test_import__weights_settings_and_told_facts(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = write(tmp_path, tensors | {"domain_classifier.weight": torch.ones(1)})
    found = import_detector(path, None, CLASSES)
    assert found.settings == SETTINGS
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    told = "\n".join(found.notes)
    for fact in ("r18 with fpn head", "sizes ((128.0", "3, in this order: car, bus, train", "BGR, mean"):
        assert fact in told
    assert "'domain_classifier.weight' has no place" in told


def test_import__classes_are_numbered_without_names(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    assert import_detector(write(tmp_path, tensors), None, ()).classes == ("class_0", "class_1", "class_2")


def test_import__teacher_is_taken_and_told(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    student = {name: tensor + 1 for name, tensor in tensors.items()}
    both = prefixed("module.modelStudent.", student) | prefixed("module.modelTeacher.", tensors)
    found = import_detector(write(tmp_path, both), None, CLASSES)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    assert f"weights: took the {len(tensors)} tensors under 'modelTeacher.', left {len(tensors)}" in found.notes


@pytest.mark.parametrize("prefix", ["module.", "model.", "student.", "model.module."])
def test_pick_network__prefixes_go(prefix: str) -> None:
    picked, notes = pick_network({f"{prefix}backbone.a": torch.ones(1)})
    assert list(picked) == ["backbone.a"]
    assert notes


def test_import__class_count(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """Row C1 of the bad inputs."""
    with pytest.raises(CheckpointError, match=r"8 vs 3 classes.*roi_heads\.box_predictor\.cls_score\.weight"):
        import_detector(write(tmp_path, tensors), None, tuple("abcdefgh"))


def test_import__backbone_only(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """Row C2 of the bad inputs."""
    backbone = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    with pytest.raises(CheckpointError, match="no detector head; this is a backbone"):
        import_detector(write(tmp_path, backbone), None, CLASSES)


def test_import__not_finite(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """Row H7 of the bad inputs."""
    name = "backbone.fpn_output2.bias"
    with pytest.raises(CheckpointError, match=rf"NaN or infinity in 1 tensors, first '{name}'"):
        import_detector(write(tmp_path, tensors | {name: torch.full((8,), torch.nan)}), None, CLASSES)


def test_import__configuration_of_another_detector(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    other = SETTINGS.model_copy(update={"anchor_sizes": ((32.0, 64.0),)})
    with pytest.raises(CheckpointError, match=r"anchor_deltas\.weight' is \(36, .* asks for \(24, "):
        import_detector(write(tmp_path, tensors, other), None, CLASSES)


def test_import__missing_tensor_is_named(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    cut = {name: tensor for name, tensor in tensors.items() if name != "roi_heads.box_head.fc2.weight"}
    with pytest.raises(CheckpointError, match=r"fc2\.weight'.*missing"):
        import_detector(write(tmp_path, cut), None, CLASSES)


def test_import__no_configuration(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = write(tmp_path, tensors)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"source\.config=FILE"):
        import_detector(path, None, CLASSES)


def test_import__model_zoo_pickle(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write(tmp_path, tensors)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    found = import_detector(path, None, CLASSES, trust=True)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())


def test_load_backbone__caffe2_names_reach_backbone_and_res5(tmp_path: Path) -> None:
    detector = Detector(DetectorSettings(), CLASSES)
    path = tmp_path / "R-50.pkl"
    blobs = {
        "conv1_w": torch.full((64, 3, 7, 7), 0.5).numpy(),
        "res_conv1_bn_s": torch.full((64,), 3.0).numpy(),
        "res3_1_branch2b_w": torch.full((128, 128, 3, 3), 0.25).numpy(),
        "res5_0_branch1_w": torch.full((2048, 1024, 1, 1), 2.0).numpy(),
        "fc1000_w": torch.ones(1000, 2048).numpy(),
    }
    path.write_bytes(pickle.dumps(blobs))
    notes = load_backbone(detector, path, trust=True)
    state = detector.state_dict()
    assert (state["backbone.stem.conv1.weight"] == 0.5).all()
    assert (state["backbone.stem.conv1.norm.weight"] == 3).all()
    assert (state["backbone.res3.1.conv2.weight"] == 0.25).all()
    assert (state["roi_heads.res5.0.shortcut.weight"] == 2).all()
    assert notes[0].startswith("backbone: 4 of the 5 tensors")
    assert "stays random: 'backbone.res4.0.conv1.weight'" in notes


def test_load_backbone__of_a_detector_leaves_its_heads(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    detector = Detector(SETTINGS, CLASSES)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    load_backbone(detector, write(tmp_path, {name: tensor + 1 for name, tensor in tensors.items()}))
    changed = {
        name.partition(".")[0] for name, tensor in detector.state_dict().items() if (tensor != before[name]).any()
    }
    assert changed == {"backbone"}


def test_load_backbone__foreign_file(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="shares no tensor with a r18 backbone"):
        load_backbone(Detector(SETTINGS, CLASSES), tmp_path / "a.pth")


def test_load_backbone__shipped_weights() -> None:
    detector = Detector(SETTINGS.model_copy(update={"backbone": "lite0"}), CLASSES)
    load_backbone(detector, None)
    loaded = detector.state_dict()["backbone.bottom_up.network.blocks.3.1.bn2.running_var"]
    assert torch.equal(loaded, lite0_imagenet()["blocks.3.1.bn2.running_var"])


def test_load_backbone__nothing_shipped_for_resnets() -> None:
    with pytest.raises(CheckpointError, match="No ImageNet weights are shipped for 'r18'"):
        load_backbone(Detector(SETTINGS, CLASSES), None)
