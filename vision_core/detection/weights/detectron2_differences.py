"""Differences of two detectron2 configurations, and which of them change what a detector answers."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from detectron2.config import CfgNode

# Keys without effect on inference of a Faster R-CNN; every other one changes answers.
_NO_EFFECT = (
    *("MODEL.WEIGHTS", "MODEL.DEVICE", "MODEL.MASK_ON", "MODEL.KEYPOINT_ON", "MODEL.BACKBONE.FREEZE_AT"),
    *("MODEL.ROI_MASK_HEAD.*", "MODEL.ROI_KEYPOINT_HEAD.*", "MODEL.ROI_BOX_CASCADE_HEAD.*", "MODEL.SEM_SEG_HEAD.*"),
    *("MODEL.PANOPTIC_FPN.*", "MODEL.RETINANET.*", "MODEL.ANCHOR_GENERATOR.ANGLES"),
    *("MODEL.RESNETS.DEFORM_MODULATED", "MODEL.RESNETS.DEFORM_NUM_GROUPS"),
    *("MODEL.RPN.BOUNDARY_THRESH", "MODEL.RPN.IOU_*", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "MODEL.RPN.POSITIVE_FRACTION"),
    *("MODEL.RPN.BBOX_REG_LOSS_*", "MODEL.RPN.SMOOTH_L1_BETA", "MODEL.RPN.LOSS_WEIGHT", "MODEL.RPN.*_TOPK_TRAIN"),
    *("MODEL.ROI_HEADS.IOU_*", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "MODEL.ROI_HEADS.POSITIVE_FRACTION"),
    *("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_*", "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA"),
    *("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", "MODEL.ROI_BOX_HEAD.USE_FED_LOSS", "MODEL.ROI_BOX_HEAD.FED_LOSS_*"),
    *("INPUT.*TRAIN*", "INPUT.RANDOM_FLIP", "INPUT.CROP.*", "INPUT.MASK_FORMAT"),
    *("TEST.EXPECTED_RESULTS", "TEST.EVAL_PERIOD", "TEST.KEYPOINT_OKS_SIGMAS", "TEST.AUG.*", "TEST.PRECISE_BN.*"),
)
_CONVERTED = ("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS")  # the same in another form
_OF_A_PYRAMID = ("MODEL.FPN.*", *(f"MODEL.ROI_BOX_HEAD.{key}" for key in ("NAME", "*FC*", "*CONV*", "NORM")))
_UNTOLD = ("MODEL.WEIGHTS", "MODEL.DEVICE", "INPUT.*", "MODEL.*_ON", "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT",
           "TEST.E*", "TEST.KEYPOINT_OKS_SIGMAS", "TEST.PRECISE_BN.*", "TEST.AUG.[MF]*",
           *(f"MODEL.{section}.*" for section in ("ROI_MASK_HEAD", "ROI_KEYPOINT_HEAD", "ROI_BOX_CASCADE_HEAD",
                                                  "SEM_SEG_HEAD", "PANOPTIC_FPN", "RETINANET")))  # fmt: skip
# Names of published code, and what they compute at inference.
_SAME = {
    "MODEL.PROPOSAL_GENERATOR.NAME": {"PseudoLabRPN": "RPN"},
    "MODEL.ROI_HEADS.NAME": {"StandardROIHeadsPseudoLab": "StandardROIHeads"},
    # Frozen after training: the same numbers.
    "MODEL.RESNETS.NORM": dict.fromkeys(("BN", "SyncBN", "nnSyncBN", "naiveSyncBN"), "FrozenBN"),
}
_ARCHITECTURE = "MODEL.META_ARCHITECTURE"


def differences(theirs: CfgNode, ours: CfgNode, neck: str) -> dict[str, tuple[object, object]]:
    """List keys of MODEL, INPUT and TEST whose values differ, with both.

    Left out are keys that concern neither this ``neck`` nor what this package trains.
    """
    here = dict(_flat(ours, ""))
    return {
        name: (value, here[name])
        for name, value in _flat(theirs, "")
        if not _are_equal(value, here[name])
        and not _is_among(name, _CONVERTED)
        and not (neck == "c4" and _is_among(name, _OF_A_PYRAMID))
        and not (_is_among(name, _NO_EFFECT) and _is_among(name, _UNTOLD))
    }


def changes_answers(name: str, theirs: object, ours: object) -> bool:
    """Check whether a differing value changes what the detector answers."""
    if name == _ARCHITECTURE:  # the students and teachers of published code are Faster R-CNNs by their names
        return "RCNN" not in str(theirs)
    return _SAME.get(name, {}).get(str(theirs)) != ours and not _is_among(name, _NO_EFFECT)


def _flat(node: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif name.startswith(("MODEL.", "INPUT.", "TEST.")):
            yield name, value


def _are_equal(first: object, second: object) -> bool:
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return list(first) == list(second)
    return first == second


def _is_among(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
