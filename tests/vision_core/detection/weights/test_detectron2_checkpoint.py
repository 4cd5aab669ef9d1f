import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from torch import Tensor

from vision_core.backbones.networks import lite0_imagenet
from vision_core.detection.model.detector import Detector
from vision_core.detection.model.detectron2_parts import detectron2_config
from vision_core.detection.model.vgg import convolutions
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.detectron2_checkpoint import detector_on_backbone, import_detector, pick_network
from vision_core.detection.weights.from_classifier import detectron2_names
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


@pytest.mark.parametrize("lost", ["running_var", "stem.conv1.norm.running_mean"])
def test_import__statistics_are_all_there_or_folded(lost: str, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    left = {name: tensor for name, tensor in tensors.items() if not name.endswith(lost)}
    with pytest.raises(CheckpointError, match=rf"{lost}', which the configuration asks for, is missing"):
        import_detector(write(tmp_path, left), None, CLASSES)
    folded = {name: tensor for name, tensor in tensors.items() if "running" not in name}
    assert any(
        "have mean 0 and variance 1" in note for note in import_detector(write(tmp_path, folded), None, CLASSES).notes
    )


def test_import__a_layer_that_the_configuration_does_not_have_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    name = "roi_heads.box_head.fc3.weight"
    with pytest.raises(CheckpointError, match=f"'{name}' has no place in the detector"):
        import_detector(write(tmp_path, tensors | {name: torch.ones(16, 16)}), None, CLASSES)
    counted = tensors | {"backbone.bottom_up.stem.conv1.norm.num_batches_tracked": torch.tensor(3)}
    import_detector(write(tmp_path, counted), None, CLASSES)


def test_import__classes_must_be_named(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"detects 3 classes and does not name them.*data\.classes="):
        import_detector(write(tmp_path, tensors), None, ())


def test_import__teacher_is_taken_and_told(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    student = {name: tensor + 1 for name, tensor in tensors.items()}
    both = prefixed("module.modelStudent.", student) | prefixed("module.modelTeacher.", tensors)
    found = import_detector(write(tmp_path, both), None, CLASSES)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    assert f"weights: took the {len(tensors)} tensors under 'module.modelTeacher.', left {len(tensors)}" in found.notes


@pytest.mark.parametrize("prefix", ["module.", "model.", "student.", "model.module."])
def test_pick_network__prefixes_go(prefix: str) -> None:
    picked, notes = pick_network({f"{prefix}backbone.a": torch.ones(1)})
    assert list(picked) == ["backbone.a"]
    assert notes


def test_import__class_count(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """Row C1 of the bad inputs."""
    with pytest.raises(CheckpointError, match=r"8 vs 3 classes.*roi_heads\.box_predictor\.cls_score\.weight"):
        import_detector(write(tmp_path, tensors), None, tuple("abcdefgh"))


@pytest.mark.parametrize("stated", [3, 20, None])
def test_import__a_configuration_of_other_classes_is_told(
    stated: int | None, tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    path = write(tmp_path, tensors)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["MODEL"]["ROI_HEADS"] |= {"NUM_CLASSES": stated}
    if stated is None:
        del config["MODEL"]["ROI_HEADS"]["NUM_CLASSES"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    found = import_detector(path, None, CLASSES)
    told = "CONFIGURATION OF OTHER WEIGHTS? MODEL.ROI_HEADS.NUM_CLASSES says 20 classes, and these weights detect 3"
    assert (told in found.notes) == (stated == 20)


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


def test_backbone__caffe2_names_reach_backbone_and_res5(tmp_path: Path) -> None:
    path = tmp_path / "R-50.pkl"
    blobs = {name: np.zeros(shape, np.float16) for name, shape in _caffe2_shapes(DetectorSettings()).items()}
    values = {"conv1_w": 0.5, "res_conv1_bn_s": 3, "res3_1_branch2b_w": 0.25, "res5_0_branch1_w": 2}
    for name, value in values.items():
        blobs[name][:] = value
    path.write_bytes(pickle.dumps(blobs | {"fc1000_w": np.ones((1000, 2048), np.float16)}))
    detector, notes = detector_on_backbone(DetectorSettings(), CLASSES, path, trust=True)
    state = detector.state_dict()
    assert (state["backbone.stem.conv1.weight"] == 0.5).all()
    assert (state["backbone.stem.conv1.norm.weight"] == 3).all()
    assert (state["backbone.res3.1.conv2.weight"] == 0.25).all()
    assert (state["roi_heads.res5.0.shortcut.weight"] == 2).all()
    assert notes[0].startswith(f"backbone: {len(blobs)} of the {len(blobs) + 1} tensors")
    assert "stays random: 'roi_heads.box_predictor.cls_score.weight'" in notes


def _caffe2_shapes(settings: DetectorSettings) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a ResNet with folded normalisation as Caffe2 has them."""
    parts = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
    kinds = {("weight",): "_w", ("norm", "weight"): "_bn_s", ("norm", "bias"): "_bn_b"}
    shapes = {}
    for name, tensor in Detector(settings, CLASSES).state_dict().items():
        at = name.removeprefix("backbone.").removeprefix("roi_heads.").split(".")
        if at[0] == "stem" and tuple(at[2:]) in kinds:
            kind = kinds[tuple(at[2:])]
            shapes[("conv1" if kind == "_w" else "res_conv1") + kind] = tuple(tensor.shape)
        elif at[0].startswith("res") and tuple(at[3:]) in kinds:
            shapes[f"{at[0]}_{at[1]}_{parts[at[2]]}{kinds[tuple(at[3:])]}"] = tuple(tensor.shape)
    return shapes


@pytest.mark.parametrize(
    ("backbone", "given", "told"),
    [
        ("r18", "resnet34", r"is a deeper network than 'r18': 80 of its tensors have no place, .*res2\.2\."),
        ("r34", "resnet18", r"is no whole 'r34': \d+ of its tensors are missing or of another shape, .*res2\.2\."),
        ("r18", "resnet50", r"is no whole 'r18': \d+ of its tensors .*res2\.0\.conv1\.weight'.*detector\.backbone"),
    ],
)
def test_backbone__of_another_depth_is_refused(backbone: str, given: str, told: str, tmp_path: Path) -> None:
    """Its blocks have the names and shapes of the first or of all that are asked for."""
    network = getattr(torchvision.models, given)(weights=None)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    settings = SETTINGS.model_copy(update={"backbone": backbone})
    with pytest.raises(CheckpointError, match=told):
        detector_on_backbone(settings, CLASSES, tmp_path / "a.pth")


def test_backbone__of_a_detector_leaves_its_heads(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    torch.manual_seed(1)
    before = Detector(SETTINGS, CLASSES).state_dict()
    path = write(tmp_path, {name: tensor + 1 for name, tensor in tensors.items()})
    torch.manual_seed(1)
    detector, _ = detector_on_backbone(SETTINGS, CLASSES, path)
    changed = {
        name.partition(".")[0] for name, tensor in detector.state_dict().items() if (tensor != before[name]).any()
    }
    assert changed == {"backbone"}


def test_backbone__foreign_file(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="shares no tensor with a r18 backbone"):
        detector_on_backbone(SETTINGS, CLASSES, tmp_path / "a.pth")


def test_backbone__shipped_weights() -> None:
    detector, _ = detector_on_backbone(SETTINGS.model_copy(update={"backbone": "lite0"}), CLASSES, None)
    loaded = detector.state_dict()["backbone.bottom_up.network.blocks.3.1.bn2.running_var"]
    assert torch.equal(loaded, lite0_imagenet()["blocks.3.1.bn2.running_var"])


def test_backbone__nothing_shipped_for_resnets() -> None:
    with pytest.raises(CheckpointError, match="No ImageNet weights are shipped for 'r18'"):
        detector_on_backbone(SETTINGS, CLASSES, None)


def test_backbone__nothing_but_noise_is_left_of_quantised_weights(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    whole = {name: (tensor * 100).to(torch.int8) for name, tensor in tensors.items()}
    told = "hold 'int8' and no scales: quantised weights. Give the checkpoint from before quantisation"
    with pytest.raises(CheckpointError, match=told):
        detector_on_backbone(SETTINGS, CLASSES, write(tmp_path, whole))
    with pytest.raises(CheckpointError, match=told):
        import_detector(write(tmp_path, whole), None, CLASSES)


@pytest.mark.parametrize("form", ["converted", "as torchvision saves it"])
def test_backbone__of_torchvision_computes_what_torchvision_does(tmp_path: Path, form: str) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).eval()
    for name, tensor in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(tensor, 0.5, 2)
    path = tmp_path / "resnet18.pth"
    if form == "converted":  # as detectron2's tools/convert-torchvision-to-d2.py
        path = path.with_suffix(".pkl")
        arrays = {name: tensor.numpy() for name, tensor in detectron2_names(network.state_dict()).items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "torchvision", "matching_heuristics": True}))
    else:
        torch.save(network.state_dict(), path)
    detector, notes = detector_on_backbone(SETTINGS, CLASSES, path, trust=True)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    scaled = (image / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    expected = torch.nn.Sequential(*list(network.children())[:-2])(scaled[None])
    found = detector.eval().backbone.bottom_up(detector._normalise(image)[None])["res5"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert any("Set by the backbone of 'torchvision': RGB, mean (123.675" in note for note in notes)


@pytest.mark.parametrize(
    ("student", "teacher"), [("model", "ema"), ("model", "model_ema"), ("state_dict", "state_dict_ema")]
)
def test_import__average_beside_the_student(
    tmp_path: Path, tensors: dict[str, Tensor], student: str, teacher: str
) -> None:
    path = write(tmp_path, {})
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    torch.save({student: other, teacher: prefixed("model.", tensors), "iteration": 3}, path)
    found = import_detector(path, None, CLASSES)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    told = f"took '{teacher}' (the average) of the sets '{student}', '{teacher}'; source.weights_key=NAME takes another"
    assert any(told in note for note in found.notes)
    chosen = import_detector(path, None, CLASSES, key=student)
    assert all(torch.equal(chosen.tensors[name], tensor) for name, tensor in other.items())
    with pytest.raises(CheckpointError, match=r"'best' names no set of weights .* it holds"):
        import_detector(path, None, CLASSES, key="best")


@pytest.mark.parametrize(
    ("of_student", "of_teacher", "key"),
    [
        ("module.modelStudent.", "module.modelTeacher.", "modelStudent"),
        ("", "teacher.", "backbone"),
        ("module.", "ema.module.", "module"),
        ("student_net.", "teacher_net.", "student_net"),
    ],
)
def test_import__student_on_request(
    of_student: str, of_teacher: str, key: str, tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    """The file of a program that trains both holds them under any prefixes, the student also under none."""
    student = {name: tensor + 1 for name, tensor in tensors.items()}
    path = write(tmp_path, prefixed(of_student, student) | prefixed(of_teacher, tensors))
    found = import_detector(path, None, CLASSES)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    place = f"under '{of_student}'" if of_student else "without a prefix"
    asked = of_student.rstrip(".") or key
    assert f"weights: those {place} are there too; source.weights_key={asked} takes them" in found.notes
    for words in {key, asked}:
        found = import_detector(path, None, CLASSES, key=words)
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in student.items())


def test_import__of_two_detectors_neither_is_guessed(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    critic = {"critic.fc.weight": torch.ones(2)}
    path = write(tmp_path, prefixed("online.", other) | prefixed("target.", tensors) | critic)
    with pytest.raises(CheckpointError, match=r"several detectors, under 'online\., target\.'.*weights_key=online"):
        import_detector(path, None, CLASSES)
    found = import_detector(path, None, CLASSES, key="target")
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    assert "weights: 'critic.fc.weight' has no place in the detector" in found.notes


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchvision", "caffe"])
def test_backbone__vgg16_brings_its_layers_and_its_head(tmp_path: Path, form: str) -> None:
    settings = DetectorSettings(backbone="vgg16")
    torch.manual_seed(0)
    network = torchvision.models.vgg16(weights=None).eval()
    path = tmp_path / "vgg16.pth"
    if form == "caffe":
        path = path.with_suffix(".pkl")
        layers = {f"features.{place}": name for name, place in convolutions().items()}
        layers |= {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
        blobs = {
            f"{layers[name.rpartition('.')[0]]}_{name.rpartition('.')[2][0]}": tensor.numpy()
            for name, tensor in network.state_dict().items()
        }
        path.write_bytes(pickle.dumps({"model": blobs}))
    else:
        torch.save(network.state_dict(), path)
    detector, notes = detector_on_backbone(settings, CLASSES, path, trust=True)
    assert notes[0].startswith("backbone: 30 of the 32 tensors")
    assert "files of Caffe and of torchvision look alike" in notes[-1]
    assert not any("box_head" in note or "features" in note for note in notes[1:])
    image = torch.randint(0, 256, (3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        maps = detector.features([image]).maps["conv5"]
        assert torch.equal(maps, network.features[:30](detector._normalise(image)[None]))
        pooled = network.features[30](maps)
        embedded = detector.eval().embed(pooled)
        torch.testing.assert_close(embedded, network.classifier[:6](pooled.flatten(1)), rtol=1e-4, atol=1e-4)


def test_backbone__vgg16_with_normalisation_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.ones(64, 3, 3, 3), "features.1.running_mean": torch.ones(64)},
               tmp_path / "bn.pth")  # fmt: skip
    small = DetectorSettings(backbone="vgg16", head_channels=8)
    with pytest.raises(CheckpointError, match=r"is no VGG-16 without normalisation: 25 of its tensors are missing"):
        detector_on_backbone(small, CLASSES, tmp_path / "bn.pth")
