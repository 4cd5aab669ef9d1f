"""Any single key of a configuration: the boxes are detectron2's own, or the key is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import Tensor

from vision_core.bundles.card import Card, TrainedOn
from vision_core.detection.model.detector import Detector
from vision_core.detection.model.detectron2_parts import detectron2_config
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.bundles import load_detector, save_detector
from vision_core.detection.weights.detectron2_checkpoint import import_detector
from vision_core.detection.weights.detectron2_differences import changes_answers, differences
from vision_core.errors import CheckpointError

CLASSES = ("car", "bus", "train")
PYRAMID = DetectorSettings(
    backbone="r18",
    neck="fpn",
    fpn_channels=32,
    head_channels=32,
    pool_size=7,
    stride_in_1x1=False,
    anchor_sizes=((16,), (32,), (64,), (128,), (256,)),
    shortest_edge_px=0,
    rpn_post_nms_test=50,
)
C4 = DetectorSettings(
    anchor_sizes=((16, 32, 64),), shortest_edge_px=0, rpn_post_nms_test=20, pixel_std=(58.0, 58.0, 58.0)
)
SAME = [
    ("MODEL.ANCHOR_GENERATOR.SIZES", [32, 64, 128]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [0.5, 1.0]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5, 1.0, 3.0]] * 5),
    ("MODEL.ANCHOR_GENERATOR.OFFSET", 0.5),
    ("MODEL.RESNETS.NORM", "GN"),
    ("MODEL.RESNETS.NORM", "BN"),
    ("MODEL.FPN.NORM", "GN"),
    ("MODEL.FPN.FUSE_TYPE", "avg"),
    ("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 20),
    ("MODEL.RPN.BBOX_REG_WEIGHTS", [2.0, 2.0, 1.0, 1.0]),
    ("MODEL.RPN.NMS_THRESH", 0.4),
    ("MODEL.RPN.BOUNDARY_THRESH", 0),
    ("MODEL.ROI_HEADS.IN_FEATURES", ["p3", "p4", "p5"]),
    ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.2),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", [5.0, 5.0, 2.5, 2.5]),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign"),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"),
    ("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2),
    ("MODEL.ROI_BOX_HEAD.NUM_FC", 1),
    ("MODEL.ROI_BOX_HEAD.NUM_CONV", 1),
    ("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", True),
    ("MODEL.PIXEL_STD", [57.375, 57.12, 58.395]),
    ("INPUT.FORMAT", "RGB"),
    ("TEST.DETECTIONS_PER_IMAGE", 7),
]
REFUSED = [
    ("MODEL.META_ARCHITECTURE", "RetinaNet"),
    ("MODEL.LOAD_PROPOSALS", True),
    ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"),
    ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
    ("MODEL.RPN.HEAD_NAME", "OtherHead"),
    ("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
    ("MODEL.RPN.CONV_DIMS", [-1, -1]),
    ("MODEL.RESNETS.NORM", "LN"),
    ("MODEL.RESNETS.RES5_DILATION", 2),
    ("MODEL.RESNETS.STEM_OUT_CHANNELS", 32),
    ("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]),
    ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
    ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True),
    ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"),
]


def configured(settings: DetectorSettings, key: str, value: object) -> CfgNode:
    config = detectron2_config(settings, len(CLASSES))
    config.MODEL.DEVICE = "cpu"
    node: Any = config
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = value
    return config


def written(folder: Path, config: CfgNode) -> tuple[Path, Any]:
    """detectron2's own model of a configuration, with weights whose boxes move, and its checkpoint."""
    torch.manual_seed(0)
    model = build_model(config).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith(("bbox_pred.weight", "anchor_deltas.weight", "cls_score.weight", "objectness_logits.weight")):
            torch.nn.init.normal_(tensor, std=0.05)
        if name.endswith("conv3.norm.weight"):  # without statistics, the deep network would overflow
            tensor.fill_(0.2)
    (folder / "config.yaml").write_text(config.dump())
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    return folder / "model.pth", model


def boxes(detector: Detector, image: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        (found,) = detector.eval().detect(detector.features([image]))
    return found.boxes, found.scores


@pytest.mark.parametrize(("key", "value"), SAME, ids=[f"{key}={value}" for key, value in SAME])
def test_boxes_are_those_of_detectron2(tmp_path: Path, key: str, value: object) -> None:
    assert_same_boxes(tmp_path, PYRAMID, key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.ANCHOR_GENERATOR.SIZES", [32, 64, 128]),
        pytest.param("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", marks=pytest.mark.slow),
        pytest.param("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", [5.0, 5.0, 2.5, 2.5], marks=pytest.mark.slow),
        pytest.param("MODEL.FPN.FUSE_TYPE", "avg", marks=pytest.mark.slow),
    ],
)
def test_boxes_are_those_of_detectron2__c4(tmp_path: Path, key: str, value: object) -> None:
    assert_same_boxes(tmp_path, C4, key, value)


def assert_same_boxes(folder: Path, settings: DetectorSettings, key: str, value: object) -> None:
    config = configured(settings, key, value)
    path, model = written(folder, config)
    found = import_detector(path, None, CLASSES)
    detector = Detector(found.settings, found.classes)
    detector.load_state_dict(found.tensors)
    torch.manual_seed(1)
    image = torch.randint(0, 256, (3, 96, 128)).to(torch.uint8)
    with torch.no_grad():
        (theirs,) = model.inference(
            [{"image": image.flip(0) if config.INPUT.FORMAT == "BGR" else image}], do_postprocess=False
        )
    ours, scores = boxes(detector, image)
    assert len(ours) > 0
    torch.testing.assert_close(ours, theirs.pred_boxes.tensor, rtol=0, atol=0.01)
    torch.testing.assert_close(scores, theirs.scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("key", "value"), REFUSED, ids=[f"{key}={value}" for key, value in REFUSED])
def test_what_is_not_built_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / "config.yaml").write_text(configured(PYRAMID, key, value).dump())
    torch.save({"model": Detector(PYRAMID, CLASSES).state_dict()}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
        import_detector(tmp_path / "model.pth", None, CLASSES)


def test_every_key_is_without_effect_built_or_refused() -> None:
    """A key that detectron2 adds one day is refused until somebody looks at it."""
    assert changes_answers("MODEL.ROI_HEADS.SOMETHING_NEW", 1, 0)
    assert not changes_answers("INPUT.MIN_SIZE_TRAIN", 1, 0)
    assert not changes_answers("MODEL.RESNETS.NORM", "SyncBN", "FrozenBN")
    assert not changes_answers("MODEL.META_ARCHITECTURE", "student_sfda_RCNN", "GeneralizedRCNN")


def test_differences__of_a_pyramid_do_not_concern_c4() -> None:
    theirs = get_cfg()
    theirs.MODEL.FPN.FUSE_TYPE = "avg"
    assert "MODEL.FPN.FUSE_TYPE" in differences(theirs, get_cfg(), "fpn")
    assert not differences(theirs, get_cfg(), "c4")


def test_bundle_of_an_unusual_detector_answers_the_same(tmp_path: Path) -> None:
    more = (("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2), ("MODEL.RPN.BBOX_REG_WEIGHTS", (2.0, 2.0, 1.0, 1.0)))
    settings = PYRAMID.model_copy(update={"other_keys": more})
    detector = Detector(settings, CLASSES).freeze()
    card = Card(
        task="sfod",
        method="source",
        config={},
        architecture={},
        preprocessing={},
        classes=(),
        trained_on=TrainedOn(description="nothing", synthetic=True),
    )
    save_detector(tmp_path / "bundle", detector, card)
    loaded, _ = load_detector(tmp_path / "bundle")
    assert loaded.settings == settings
    image = torch.randint(0, 256, (3, 96, 128)).to(torch.uint8)
    torch.testing.assert_close(boxes(loaded, image), boxes(detector, image))
