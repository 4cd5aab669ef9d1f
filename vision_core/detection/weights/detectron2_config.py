"""Conversion of a detectron2 ``config.yaml`` into our settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.config.compat import ConverterV1, ConverterV2
from pydantic import ValidationError

from vision_core.detection.model.detectron2_parts import builds, detectron2_config
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.detectron2_differences import changes_answers, differences
from vision_core.errors import CheckpointError

_BACKBONES = {"build_resnet_backbone": "c4", "build_resnet_fpn_backbone": "fpn"}
_MAX_BASES = 8
_KEYS = {  # of settings that a value of detectron2 may not fit
    "backbone": "MODEL.RESNETS.DEPTH",
    "freeze_at": "MODEL.BACKBONE.FREEZE_AT",
    "fpn_channels": "MODEL.FPN.OUT_CHANNELS",
    "head_channels": "MODEL.ROI_BOX_HEAD.FC_DIM",
    "anchor_sizes": "MODEL.ANCHOR_GENERATOR.SIZES",
    "anchor_ratios": "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
    "channel_order": "INPUT.FORMAT",
    "pixel_mean": "MODEL.PIXEL_MEAN",
    "pixel_std": "MODEL.PIXEL_STD",
    "shortest_edge_px": "INPUT.MIN_SIZE_TEST",
    "longest_edge_px": "INPUT.MAX_SIZE_TEST",
    "rpn_batch": "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
    "rpn_pre_nms_train": "MODEL.RPN.PRE_NMS_TOPK_TRAIN",
    "rpn_post_nms_train": "MODEL.RPN.POST_NMS_TOPK_TRAIN",
    "rpn_pre_nms_test": "MODEL.RPN.PRE_NMS_TOPK_TEST",
    "rpn_post_nms_test": "MODEL.RPN.POST_NMS_TOPK_TEST",
    "rpn_nms": "MODEL.RPN.NMS_THRESH",
    "pool_size": "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
    "roi_batch": "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "roi_positive_fraction": "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "box_smooth_l1_beta": "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA",
    "test_score": "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
    "test_nms": "MODEL.ROI_HEADS.NMS_THRESH_TEST",
    "test_detections": "TEST.DETECTIONS_PER_IMAGE",
}
_REWRITE = "if that class computes the same at inference, write the name built here into the file"
_REMEDY = dict.fromkeys(("MODEL.META_ARCHITECTURE", "MODEL.PROPOSAL_GENERATOR.NAME", "MODEL.ROI_HEADS.NAME"), _REWRITE)
# Names from before version 2, and those of now.
_RENAMED = (
    *(*ConverterV1.RENAME, *ConverterV2.RENAME),
    ("MODEL.RPN.ANCHOR_SIZES", "MODEL.ANCHOR_GENERATOR.SIZES"),
    ("MODEL.RPN.ANCHOR_ASPECT_RATIOS", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"),
)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Architecture of a detector, with notes on what was not converted.

    Attributes:
        settings: Architecture.
        num_classes: Number of its classes, None where the configuration does not state one.
        notes: Lines for the user.
    """

    settings: DetectorSettings
    num_classes: int | None
    notes: tuple[str, ...]


def read_architecture(path: Path) -> Architecture:
    """Read a detectron2 configuration with names of any version, as plain YAML.

    Base files are read if they are local; unknown keys are dropped with a note. What changes answers is built, or
    refused by name; other differences are noted.

    Raises:
        CheckpointError: No configuration, or of a detector that this package does not build.
    """
    config, stated, dropped = _merge_config(path)
    settings = _settings(path, config)
    num_classes = int(config.MODEL.ROI_HEADS.NUM_CLASSES)
    ours = detectron2_config(settings, num_classes)
    differing = differences(config, ours, settings.neck)
    settings = settings.model_copy(update={"other_keys": _other_keys(path, differing) or None})
    notes = [f"config: unknown key '{key}' not used" for key in dropped]
    notes += [
        f"config: {name} is {theirs!r} there, {here!r} here"
        + (", built so" if name in dict(settings.other_keys or ()) else "")
        for name, (theirs, here) in differing.items()
    ]
    is_stated = "NUM_CLASSES" in stated.get("ROI_HEADS", {})
    return Architecture(settings=settings, num_classes=num_classes if is_stated else None, notes=tuple(notes))


def _merge_config(path: Path) -> tuple[CfgNode, dict[str, Any], list[str]]:
    """Merge a configuration into the defaults; returns also what it states of the model, and its unknown keys."""
    content = _read(path, _MAX_BASES)
    known = get_cfg()
    content.pop("VERSION", None)
    dropped = _prune(content, known)
    if not _are_sections(content.get("MODEL")) or not content["MODEL"]:
        raise CheckpointError(
            f"'{path}' is no detectron2 configuration: it says nothing of a MODEL. Give the config.yaml that the "
            "training of these weights wrote."
        )
    try:
        known.merge_from_other_cfg(CfgNode(content))
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"'{path}' does not fit detectron2: {error}") from error
    return known, content["MODEL"], dropped


def _read(path: Path, bases_left: int) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"'{path}' is no readable configuration: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' is no detectron2 configuration: found {type(content).__name__}, not sections.")
    for old, new in _RENAMED:
        _rename(path, content, old, new)
    base = content.pop("_BASE_", None)
    if base is None:
        return content
    if not bases_left or "://" in str(base):
        raise CheckpointError(f"'{path}' builds on '{base}'. Give the config.yaml that training wrote: it is complete.")
    below = path.parent / str(base)
    if not below.is_file():
        raise CheckpointError(
            f"'{path}' builds on '{base}', and '{below}' does not exist. Put that file there, or give the config.yaml "
            "that training wrote: it is complete."
        )
    return _overlay(_read(below, bases_left - 1), content)


def _rename(path: Path, content: dict[str, Any], old: str, new: str) -> None:
    """Give a key the name that it has since version 2, in place; files of both versions may build on each other.

    Raises:
        CheckpointError: The file at ``path`` has the key under both names, with different values.
    """
    *sections, last = old.split(".")
    place: Any = content
    for section in sections:
        place = place.get(section) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        return
    value = place.pop(last)
    *sections, last = new.split(".")
    place = content
    for section in sections:
        if not isinstance(place.get(section), dict):
            place[section] = {}
        place = place[section]
    if last in place and place[last] != value:
        raise CheckpointError(
            f"'{path}': {old} is '{value}', and {new}, which is its name since version 2, is '{place[last]}'. "
            "Leave the one that the weights were trained with."
        )
    place[last] = value


def _overlay(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _overlay(base[key], top[key]) for key in base.keys() & top.keys() if _are_sections(base[key], top[key])
    }
    return base | top | both


def _are_sections(*values: object) -> bool:
    return all(isinstance(value, dict) for value in values)


def _prune(content: dict[str, Any], known: dict[str, Any], prefix: str = "") -> list[str]:
    """Remove keys that ``known`` does not have, in place; return their dotted names."""
    dropped = []
    for key in list(content):
        if key not in known:
            del content[key]
            dropped.append(f"{prefix}{key}")
        elif _are_sections(content[key], known[key]):
            dropped += _prune(content[key], known[key], f"{prefix}{key}.")
    return dropped


def _settings(path: Path, config: CfgNode) -> DetectorSettings:
    model = config.MODEL
    problems = _unsupported(model)
    if problems:
        raise CheckpointError([f"'{path}': {problem}" for problem in problems])
    try:
        return DetectorSettings(**_setting_values(config))
    except ValidationError as error:
        first = error.errors()[0]
        setting = str(first["loc"][0])
        told = f"{_KEYS.get(setting, setting)}: {first['msg']}, found '{first['input']}'"
        raise CheckpointError(f"'{path}': {told}. This checkpoint cannot be used here.") from error


def _unsupported(model: CfgNode) -> list[str]:
    problems = []
    if model.BACKBONE.NAME not in _BACKBONES:
        problems.append(f"MODEL.BACKBONE.NAME '{model.BACKBONE.NAME}' is not one of {sorted(_BACKBONES)}.")
    plain = {"NUM_GROUPS": 1, "WIDTH_PER_GROUP": 64, "DEFORM_ON_PER_STAGE": [False] * 4}
    problems += [
        f"MODEL.RESNETS.{name} is '{model.RESNETS[name]}', of a grouped or deformable network; plain ones are built."
        for name, value in plain.items()
        if model.RESNETS[name] != value
    ]
    if model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        problems.append("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG is true; boxes per class are supported.")
    ratios = _lists(model.ANCHOR_GENERATOR.ASPECT_RATIOS)
    if any(each != ratios[0] for each in ratios):
        problems.append(f"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS has {len(ratios)} lists that differ; one is supported.")
    return problems


def _setting_values(config: CfgNode) -> dict[str, Any]:
    model = config.MODEL
    rpn, heads, box_head = model.RPN, model.ROI_HEADS, model.ROI_BOX_HEAD
    return {
        "backbone": f"r{model.RESNETS.DEPTH}",
        "neck": _BACKBONES[model.BACKBONE.NAME],
        "stride_in_1x1": model.RESNETS.STRIDE_IN_1X1,
        "freeze_at": model.BACKBONE.FREEZE_AT,
        "fpn_channels": model.FPN.OUT_CHANNELS,
        "head_channels": box_head.FC_DIM,
        "anchor_sizes": _lists(model.ANCHOR_GENERATOR.SIZES),
        "anchor_ratios": _lists(model.ANCHOR_GENERATOR.ASPECT_RATIOS)[0],
        "channel_order": config.INPUT.FORMAT.lower(),
        "pixel_mean": model.PIXEL_MEAN,
        "pixel_std": model.PIXEL_STD,
        "shortest_edge_px": config.INPUT.MIN_SIZE_TEST,
        "longest_edge_px": config.INPUT.MAX_SIZE_TEST,
        "rpn_batch": rpn.BATCH_SIZE_PER_IMAGE,
        "rpn_pre_nms_train": rpn.PRE_NMS_TOPK_TRAIN,
        "rpn_post_nms_train": rpn.POST_NMS_TOPK_TRAIN,
        "rpn_pre_nms_test": rpn.PRE_NMS_TOPK_TEST,
        "rpn_post_nms_test": rpn.POST_NMS_TOPK_TEST,
        "rpn_nms": rpn.NMS_THRESH,
        "pool_size": box_head.POOLER_RESOLUTION,
        "roi_batch": heads.BATCH_SIZE_PER_IMAGE,
        "roi_positive_fraction": heads.POSITIVE_FRACTION,
        "box_smooth_l1_beta": box_head.SMOOTH_L1_BETA,
        "test_score": heads.SCORE_THRESH_TEST,
        "test_nms": heads.NMS_THRESH_TEST,
        "test_detections": config.TEST.DETECTIONS_PER_IMAGE,
    }


def _other_keys(path: Path, differing: Mapping[str, tuple[object, object]]) -> tuple[tuple[str, object], ...]:
    """List the keys of ``DetectorSettings.other_keys`` among those that differ.

    Raises:
        CheckpointError: A key changes answers and cannot be built.
    """
    changing = {name: pair for name, pair in differing.items() if changes_answers(name, *pair)}
    problems = [
        f"'{path}': {name} is '{theirs}', and the detector is built with '{ours}'. Answers would differ: "
        f"{_REMEDY.get(name, 'this checkpoint cannot be used here')}."
        for name, (theirs, ours) in changing.items()
        if not builds(name, theirs)
    ]
    if problems:
        raise CheckpointError(problems)
    return tuple((name, _as_tuple(theirs)) for name, (theirs, _) in changing.items())


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _lists(values: Any) -> Any:  # noqa: ANN401 (not yet checked)
    """Read anchor values as detectron2 does: a flat list is that of all levels."""
    return values if values and isinstance(values[0], list | tuple) else [values]
