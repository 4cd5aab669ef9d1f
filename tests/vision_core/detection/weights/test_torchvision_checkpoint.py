"""Faster R-CNNs that torchvision builds, with random weights: their boxes are found again after the import."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops.misc import FrozenBatchNorm2d

from vision_core.detection.model.detector import Detector
from vision_core.detection.weights.detectron2_checkpoint import import_detector
from vision_core.detection.weights.torchvision_checkpoint import read_torchvision
from vision_core.errors import CheckpointError

CLASSES = ("car", "bus", "train")
# Where two images of the same pixels go through two implementations in float32.
BOXES_PX, SCORES = 1e-3, 1e-5
SIDES = (96, 160)  # padded to 96 x 160: no multiple of 64, so that the steps of the last level are no strides


def small(**arguments: Any) -> nn.Module:  # noqa: ANN401
    """torchvision's own class on a ResNet-18, with a narrow box head."""
    torch.manual_seed(0)
    model = FasterRCNN(
        resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d),
        min_size=SIDES[0],
        max_size=200,
        box_head=TwoMLPHead(256 * 49, 16),
        box_predictor=FastRCNNPredictor(16, len(CLASSES) + 1),
        rpn_post_nms_top_n_test=100,
        **arguments,
    )
    return spread(model.eval())


def spread(model: nn.Module) -> nn.Module:
    """Give the boxes and scores of random weights some variety."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("bbox_pred.weight", "cls_score.weight", "cls_logits.weight")):
            nn.init.normal_(tensor, std=0.05)
        if name.endswith("bn3.weight"):
            tensor.fill_(0.2)
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        if name.endswith("running_mean"):
            tensor.uniform_(-0.1, 0.1)
    return model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return small()


def written(folder: Path, tensors: dict[str, Tensor], *lines: str) -> tuple[Path, Path]:
    torch.save(tensors, folder / "model.pth")
    arguments = ("min_size: 96", "max_size: 200", "rpn_post_nms_top_n_test: 100", *lines)
    (folder / "arguments.yaml").write_text("\n".join(arguments))
    return folder / "model.pth", folder / "arguments.yaml"


def imported(folder: Path, tensors: dict[str, Tensor], *lines: str) -> tuple[Detector, str]:
    found = import_detector(*written(folder, tensors, *lines), CLASSES)
    detector = Detector(found.settings, found.classes)
    detector.load_state_dict(found.tensors)
    return detector.freeze(), "\n".join(found.notes)


def compare(model: nn.Module, detector: Detector) -> set[int]:
    """Compare the objects in an image; returns their labels."""
    image = torch.randint(0, 256, (3, *SIDES), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        [theirs] = model([image / 255])
        [ours] = detector.detect(detector.features([image]))
    assert len(ours.boxes) > 10
    torch.testing.assert_close(ours.boxes, theirs["boxes"], rtol=0, atol=BOXES_PX)
    torch.testing.assert_close(ours.scores, theirs["scores"], rtol=0, atol=SCORES)
    assert torch.equal(ours.labels, theirs["labels"] - 1)  # background is 0 there
    return set(ours.labels.tolist())


def test_boxes_are_those_of_torchvision(model: nn.Module, tmp_path: Path) -> None:
    detector, told = imported(tmp_path, model.state_dict())
    assert len(compare(model, detector)) > 1
    for fact in (
        "r18 with fpn head, stride in the 3x3",
        "3, in this order: car, bus, train",
        "RGB, mean (123.675, 116.28, 103.53), deviation (58.395, 57.12, 57.375), shortest edge 96",
        "class 0 is background there and comes last here",
        "box weights (10.0, 10.0, 5.0, 5.0)",
        "1e-05 is added to variances",
        "anchors have whole corners",
    ):
        assert fact in told
    assert detector.settings.freeze_at == 2


def test_boxes_are_those_of_torchvision__other_arguments(tmp_path: Path) -> None:
    sizes = tuple((side, 1.5 * side) for side in (16, 32, 64, 128, 256))
    other = small(
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5),
        bbox_reg_weights=(5.0, 5.0, 2.5, 2.5),
        box_nms_thresh=0.3,
        box_score_thresh=0.2,
        box_detections_per_img=40,
        rpn_nms_thresh=0.5,
        image_mean=(0.5, 0.4, 0.3),
        image_std=(0.2, 0.25, 0.3),
    )
    for module in other.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
            module.running_var.mul_(1e-4)  # so that an eps is seen
            module.weight.mul_(1e-2)
    lines = (
        f"anchor_sizes: {[list(level) for level in sizes]}", "bbox_reg_weights: [5, 5, 2.5, 2.5]",
        "box_nms_thresh: 0.3", "box_score_thresh: 0.2", "box_detections_per_img: 40", "rpn_nms_thresh: 0.5",
        "image_mean: [0.5, 0.4, 0.3]", "image_std: [0.2, 0.25, 0.3]", "norm_eps: 0",
    )  # fmt: skip
    detector, told = imported(tmp_path, other.state_dict(), *lines)
    compare(other, detector)
    assert "0 is added to variances" in told


@pytest.mark.slow
def test_boxes_are_those_of_torchvision__resnet_50(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=96, max_size=200, rpn_post_nms_top_n_test=100
    )
    detector, _ = imported(tmp_path, spread(whole.eval()).state_dict())
    assert detector.settings.backbone == "r50"
    compare(whole, detector)


def test_names_of_older_versions_and_of_training_scripts(model: nn.Module, tmp_path: Path) -> None:
    older = {
        name.replace("blocks.0.0.", "blocks.0.").replace("head.conv.0.0.", "head.conv."): tensor
        for name, tensor in model.state_dict().items()
    }
    assert older.keys() != model.state_dict().keys()
    expected, _ = imported(tmp_path, model.state_dict())
    path, arguments = written(tmp_path, older)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in older.items()}, "epoch": 3}, path)
    found = import_detector(path, arguments, CLASSES)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.state_dict().items())


def test_the_published_file_is_known_by_its_hash(model: nn.Module, tmp_path: Path) -> None:
    tensors = model.state_dict()
    known, renamed = read_torchvision(tensors, tmp_path, None, "258fb6c6" + 56 * "0")
    _, plain = read_torchvision(tensors, tmp_path, None, 64 * "0")
    assert any("0 is added to variances" in note for note in known.notes)
    name = "backbone.bottom_up.stem.conv1.norm"
    variance = plain[f"{name}.running_var"]
    factor = renamed[f"{name}.weight"] / plain[f"{name}.weight"]
    torch.testing.assert_close(factor, ((variance + 1e-5) / variance).sqrt())
    assert known.settings.shortest_edge_px == 800


def test_other_tensors_are_listed_and_missing_ones_refused(model: nn.Module, tmp_path: Path) -> None:
    _, told = imported(tmp_path, model.state_dict() | {"roi_heads.mask_head.0.0.weight": torch.ones(2)})
    assert "'roi_heads.mask_head.0.0.weight' has no place in the detector" in told
    lost = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("fc7.weight")}
    with pytest.raises(CheckpointError, match=r"fc2\.weight'.*is missing"):
        imported(tmp_path, lost)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("backbone.fpn.inner_blocks.0.1.weight", "is fasterrcnn_resnet50_fpn_v2 .normalisation in the pyramid"),
        ("rpn.head.conv.1.0.weight", "is fasterrcnn_resnet50_fpn_v2 .two convolutions"),
        ("roi_heads.box_head.0.0.weight", "is fasterrcnn_resnet50_fpn_v2 .convolutions in the box head"),
        ("backbone.body.0.0.weight", "is fasterrcnn_mobilenet_v3_large_fpn of torchvision"),
        ("head.classification_head.cls_logits.weight", "is a detector of one stage"),
        ("backbone.body.layer3.30.conv1.weight", "its backbone has 3 blocks in layer3"),
    ],
)
def test_other_detectors_are_refused_by_name(name: str, told: str, model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=told):
        imported(tmp_path, model.state_dict() | {name: torch.ones(1)})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("box_fg_iou_thresh: 0.5", r"arguments\.yaml': box_fg_iou_thresh: .*: min_size, "),
        ("box_nms_thresh: 3", r"arguments\.yaml': box_nms_thresh: "),
        ("aspect_ratios: [1.0]", r"'rpn\.head\.cls_logits\.weight' has 3 anchors a cell, and .* give 1\. Give anchor_"),
        ("anchor_sizes: [[32], [64]]", r"and 2 lists of sizes .*a list for each of 5 levels"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(line: str, told: str, model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=told):
        imported(tmp_path, model.state_dict(), line)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ((), r"detects 3 classes and does not name them\. Give the 3 names .* without background"),
        (CLASSES[:1], r"1 vs 3 classes\. .*output of no class \('N/A' of torchvision\) takes a name of its own"),
        (
            ("background", *CLASSES),
            r"4 vs 3 classes\. .* Give the 3 names in the order of its logits, without background",
        ),
    ],
)
def test_classes_are_named_without_background(
    classes: tuple[str, ...], told: str, model: nn.Module, tmp_path: Path
) -> None:
    path, arguments = written(tmp_path, model.state_dict())
    with pytest.raises(CheckpointError, match=told):
        import_detector(path, arguments, classes)
