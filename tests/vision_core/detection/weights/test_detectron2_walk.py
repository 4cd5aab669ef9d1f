"""Configurations of detectron2 in which one key was changed by code: its own boxes, or a refusal that names the key.

Every key of MODEL, INPUT and TEST is walked; a value follows from its type, so that keys of a later detectron2 are met
too. A sample runs in every test, the whole walk in the slow ones.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from tests.vision_core.detection.weights.test_detectron2_differences import CLASSES, PYRAMID, boxes, written
from vision_core.detection.model.detector import Detector
from vision_core.detection.model.detectron2_parts import detectron2_config
from vision_core.detection.weights.detectron2_checkpoint import import_detector
from vision_core.detection.weights.detectron2_differences import changes_answers
from vision_core.errors import CheckpointError

SECTIONS = ("MODEL", "INPUT", "TEST")
LARGEST_SIDE = 128  # a network that grows with a key must not become slow
OTHER_TEXTS = {
    "INPUT.FORMAT": "RGB",
    "MODEL.RESNETS.NORM": "GN",
    "MODEL.FPN.NORM": "GN",
    "MODEL.ROI_BOX_HEAD.NORM": "GN",
    "MODEL.FPN.FUSE_TYPE": "avg",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
}


def keys(node: CfgNode, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in node.items():
        place = f"{prefix}{name}"
        if isinstance(value, CfgNode):
            found += keys(value, f"{place}.")
        elif place.startswith(tuple(f"{section}." for section in SECTIONS)):
            found.append((place, value))
    return found


def other(place: str, value: Any) -> Any:  # noqa: ANN401
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 0.4 if 0 < value < 1 and value != 0.4 else value + 0.5
    if isinstance(value, str):
        return OTHER_TEXTS.get(place, f"{value}Other")
    if not value:
        return type(value)(["res4"] if "FEATURES" in place else [1])
    if isinstance(value[0], str):
        return value[1:]
    return type(value)(other(place, each) for each in value)


BASE = detectron2_config(PYRAMID, len(CLASSES))
LEFT_OUT = {
    "MODEL.DEVICE",  # of the machine
    "MODEL.ROI_HEADS.NUM_CLASSES",  # the names of the classes are compared with it
    "MODEL.META_ARCHITECTURE",  # students and teachers of published code are known by their names
}
ALL = {place: other(place, value) for place, value in keys(BASE) if place not in LEFT_OUT}
# One of each kind: built by us, without effect, text, list, nested list, of another head, refused.
SAMPLE = (
    "INPUT.FORMAT",
    "INPUT.MIN_SIZE_TRAIN",
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "MODEL.RPN.NMS_THRESH",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.ROI_HEADS.IN_FEATURES",
    "MODEL.RESNETS.NUM_GROUPS",
    "MODEL.RPN.HEAD_NAME",
    "TEST.DETECTIONS_PER_IMAGE",
)


def configuration(place: str) -> CfgNode:
    config = BASE.clone()
    config.MODEL.DEVICE = "cpu"
    node: Any = config
    *path, last = place.split(".")
    for part in path:
        node = node[part]
    node[last] = ALL[place]
    return config


def check(folder: Path, place: str) -> str:
    """Compare with detectron2; returns what happened."""
    config = configuration(place)
    try:
        path, model = written(folder, config)
    except Exception:  # detectron2 raises what it likes for values that it cannot build
        (folder / "config.yaml").write_text(config.dump())
        torch.save({"model": Detector(PYRAMID, CLASSES).state_dict()}, folder / "model.pth")
        if not changes_answers(place, ALL[place], dict(keys(BASE))[place]):
            return "of training alone"
        with pytest.raises(CheckpointError, match=place.replace(".", r"\.")):
            import_detector(folder / "model.pth", None, CLASSES)
        return "refused by both"
    try:
        found = import_detector(path, None, CLASSES)
    except CheckpointError as error:
        assert place in str(error)
        return "refused"
    detector = Detector(found.settings, found.classes)
    detector.load_state_dict(found.tensors)
    torch.manual_seed(1)
    image = torch.randint(0, 256, (3, 96, LARGEST_SIDE)).to(torch.uint8)
    given = image.flip(0) if config.INPUT.FORMAT == "BGR" else image
    with torch.no_grad():
        (theirs,) = model.inference([{"image": given}], do_postprocess=False)
    ours, scores = boxes(detector, image)
    assert len(ours) > 0
    torch.testing.assert_close(ours, theirs.pred_boxes.tensor, rtol=0, atol=0.01)
    torch.testing.assert_close(scores, theirs.scores, rtol=0, atol=1e-5)
    return "equal"


@pytest.mark.parametrize("place", SAMPLE)
def test_any_key__boxes_are_equal_or_the_key_is_named(place: str, tmp_path: Path) -> None:
    check(tmp_path, place)


@pytest.mark.slow
@pytest.mark.parametrize("place", [place for place in ALL if place not in SAMPLE])
def test_every_key__boxes_are_equal_or_the_key_is_named(place: str, tmp_path: Path) -> None:
    check(tmp_path, place)


def test_sample__meets_what_is_built_and_what_is_refused(tmp_path: Path) -> None:
    assert set(SAMPLE) <= ALL.keys()
    assert check(tmp_path, "TEST.DETECTIONS_PER_IMAGE") == "equal"
    assert check(tmp_path, "MODEL.RPN.HEAD_NAME") == "refused by both"
