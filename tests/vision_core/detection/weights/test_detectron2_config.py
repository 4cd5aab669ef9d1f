from pathlib import Path
from typing import Any

import pytest
import yaml

from vision_core.detection.model.detectron2_parts import detectron2_config
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.detectron2_config import read_architecture
from vision_core.errors import CheckpointError

OLD_C4 = """
MODEL:
  META_ARCHITECTURE: student_sfda_RCNN
  WEIGHT: source.pth
  PIXEL_MEAN: [103.53, 116.28, 123.675]
  RESNETS: {DEPTH: 101, STRIDE_IN_1X1: true}
  RPN:
    ANCHOR_SIZES: [[128, 256, 512]]
    PRE_NMS_TOPK_TEST: 6000
    POST_NMS_TOPK_TEST: 300
  ROI_HEADS: {NAME: Res5ROIHeads, NUM_CLASSES: 8}
INPUT: {MIN_SIZE_TEST: 600}
SOURCE_FREE: {TYPE: lpld}
"""


def write(folder: Path, content: str | dict[str, Any], name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    "settings",
    [
        DetectorSettings(),
        DetectorSettings(
            backbone="r18",
            neck="fpn",
            pool_size=7,
            head_channels=32,
            fpn_channels=16,
            channel_order="rgb",
            test_nms=0.3,
        ),
    ],
    ids=["c4", "fpn"],
)
def test_read__what_we_write_comes_back(tmp_path: Path, settings: DetectorSettings) -> None:
    read = read_architecture(write(tmp_path, detectron2_config(settings, 6).dump()))
    assert read.settings == settings
    assert read.num_classes == 6
    assert read.notes == ()


def test_read__names_from_before_version_2(tmp_path: Path) -> None:
    read = read_architecture(write(tmp_path, OLD_C4))
    assert read.settings == DetectorSettings(backbone="r101")
    assert read.num_classes == 8
    assert read.notes[0] == "config: unknown key 'SOURCE_FREE' not used"


def test_read__what_is_not_taken_over_is_told(tmp_path: Path) -> None:
    read = read_architecture(
        write(tmp_path, {"MODEL": {"RESNETS": {"NORM": "BN"}, "RPN": {"POSITIVE_FRACTION": 0.25}}})
    )
    assert "config: MODEL.RESNETS.NORM is 'BN' there, 'FrozenBN' here" in read.notes
    assert "config: MODEL.RPN.POSITIVE_FRACTION is 0.25 there, 0.5 here" in read.notes


def test_read__base_file_beside(tmp_path: Path) -> None:
    write(tmp_path, {"MODEL": {"RESNETS": {"DEPTH": 101}}, "INPUT": {"MIN_SIZE_TEST": 400}}, "base.yaml")
    top = write(tmp_path, {"_BASE_": "base.yaml", "INPUT": {"MAX_SIZE_TEST": 900}})
    settings = read_architecture(top).settings
    assert (settings.backbone, settings.shortest_edge_px, settings.longest_edge_px) == ("r101", 400, 900)


def test_read__files_with_names_of_both_versions(tmp_path: Path) -> None:
    base = {"VERSION": 2, "MODEL": {"WEIGHTS": "R-50.pkl", "ANCHOR_GENERATOR": {"SIZES": [[64]]}}}
    write(tmp_path, base, "base.yaml")
    content = {"MODEL": {"WEIGHT": "b.pth", "RPN": {"ANCHOR_SIZES": [[128, 256]]}, "ROI_HEADS": {"NMS": 0.3}}}
    read = read_architecture(write(tmp_path, {"_BASE_": "base.yaml"} | content))
    assert read.settings.anchor_sizes == ((128, 256),)
    assert read.settings.test_nms == 0.3
    assert not any("not used" in note for note in read.notes)


def test_read__one_key_under_both_its_names(tmp_path: Path) -> None:
    content = {"MODEL": {"RPN": {"ANCHOR_SIZES": [[128]]}, "ANCHOR_GENERATOR": {"SIZES": [[64]]}}}
    with pytest.raises(
        CheckpointError, match=r"MODEL\.RPN\.ANCHOR_SIZES is '\[\[128\]\]', and MODEL\.ANCHOR_GENERATOR"
    ):
        read_architecture(write(tmp_path, content))


def test_read__base_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"builds on 'Base-RCNN-C4\.yaml', and '.*' does not exist\. Put that file"
    ):
        read_architecture(write(tmp_path, {"_BASE_": "Base-RCNN-C4.yaml"}))


@pytest.mark.parametrize("base", ["https://example.org/base.yaml", "config.yaml"], ids=["address", "loop"])
def test_read__base_that_is_not_followed(tmp_path: Path, base: str) -> None:
    with pytest.raises(CheckpointError, match="builds on"):
        read_architecture(write(tmp_path, {"_BASE_": base}))


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ({"BACKBONE": {"NAME": "build_vgg_backbone"}}, "build_vgg_backbone"),
        ({"RESNETS": {"NUM_GROUPS": 32}}, "grouped"),
        ({"ROI_BOX_HEAD": {"CLS_AGNOSTIC_BBOX_REG": True}}, "CLS_AGNOSTIC_BBOX_REG"),
        ({"RESNETS": {"DEPTH": 152}}, "found 'r152'"),
        ({"RESNETS": {"DEPTH": "deep"}}, "does not fit detectron2"),
    ],
)
def test_read__unsupported_detector(tmp_path: Path, model: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        read_architecture(write(tmp_path, {"MODEL": model}))


@pytest.mark.parametrize("content", ["method: lpld\ndetector: {backbone: r18}", "model: {DEPTH: 50}", "MODEL: 3"])
def test_read__configuration_of_another_program(tmp_path: Path, content: str) -> None:
    with pytest.raises(CheckpointError, match="no detectron2 configuration: it says nothing of a MODEL"):
        read_architecture(write(tmp_path, content))


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "!!python/object/apply:os.system ['true']"])
def test_read__no_plain_configuration(tmp_path: Path, content: str) -> None:
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        read_architecture(write(tmp_path, content))
