"""Configuration sections of detection tasks: data set and detector. Pydantic only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from vision_core.config.schema import Data, Fraction, NonNegativeFloat, PositiveFloat, Section

_VGG16_HEAD = {"neck": "none", "pool_size": 7, "head_channels": 4096}
_Sizes = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


class DetectionData(Data):
    """Data set of images and boxes."""

    format: Literal[
        "auto",
        "voc",
        "coco",
        "yolo",
        "cityscapes",
        "foggy_cityscapes",
        "kitti",
        "sim10k",
        "clipart",
        "watercolor",
        "images",
    ] = Field(
        "auto",
        description="auto: what the folder looks like. voc: Annotations, ImageSets/Main, JPEGImages. coco: a folder of "
        "images with <split>.json. yolo: data.yaml, images, labels. cityscapes, foggy_cityscapes, kitti: as published, "
        "or as a VOC folder. sim10k, clipart, watercolor: VOC folders with their own classes. images: a plain folder, "
        "no labels.",
    )
    fog_beta: PositiveFloat | None = Field(
        None, description="Fog of foggy_cityscapes: 0.005, 0.01 or 0.02, of which published results mostly take 0.02."
    )
    eval_classes: tuple[str, ...] = Field((), description="Classes that count in the metric; empty: all with boxes.")
    filter_empty: bool = Field(
        False,
        description="Drop training images without boxes. Reads target labels: for parity with published code only.",
    )
    on_missing: Literal["refuse", "skip"] = Field(
        "refuse", description="A listed image that is missing, where labels are read; else it is left out and told."
    )
    on_corrupt: Literal["refuse", "skip"] = Field(
        "refuse",
        description="refuse: files that end too early are found before the run, and stop it. skip: every file is "
        "decoded once before the run, and those that fail are left out.",
    )
    on_bad_box: Literal["refuse", "drop"] = Field("refuse", description="A labelled box without area or off the image.")
    max_megapixels: PositiveFloat = Field(100.0, description="Largest image to decode, in millions of pixels.")

    @classmethod
    def conditional_defaults(cls, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        """Find the format of the folder where none is given, so that the settings of a run name it."""
        root = keys.get("root")
        given = keys.get("format", cls.model_fields["format"].default)
        if given != "auto" or not isinstance(root, str | Path) or not str(root):
            return keys
        from vision_core.detection.datasets.formats import detect_format  # images: not for --help

        return {**keys, "format": detect_format(Path(root))}


class DetectorSettings(Section):
    """Architecture and constants of a Faster R-CNN; the defaults are the C4 detector of the published benchmarks.

    Those of VGG-16 are its published head: no neck, regions of 7 x 7, two layers of 4096.
    """

    backbone: Literal["r18", "r34", "r50", "r101", "vgg16", "lite0"] = Field("r50", description="Backbone.")
    neck: Literal["c4", "fpn", "none"] = Field(
        "c4",
        description="c4: res4 features and res5 head. fpn: feature pyramid. none: the last map of vgg16 and its head.",
    )
    stride_in_1x1: bool = Field(True, description="Stride on the 1x1 convolution (MSRA, caffe style) or on the 3x3.")
    freeze_at: int = Field(
        2, ge=0, le=5, description="Stages that do not train: 2 freezes stem and res2, of vgg16 conv1 and conv2."
    )
    fpn_channels: int = Field(256, ge=1, le=65536, description="Width of the feature pyramid.")
    head_channels: int = Field(1024, ge=1, le=65536, description="Width of the two-layer box head on fpn or none.")
    anchor_sizes: tuple[_Sizes, ...] = Field(
        ((128, 256, 512),), description="Anchor sizes in pixels, one list per feature level."
    )
    anchor_ratios: _Sizes = Field((0.5, 1.0, 2.0), description="Height over width of the anchors.")
    channel_order: Literal["bgr", "rgb"] = Field("bgr", description="Channel order the weights expect.")
    pixel_mean: tuple[float, float, float] = Field((103.53, 116.28, 123.675), description="In that channel order.")
    pixel_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (1.0, 1.0, 1.0), description="In that channel order."
    )
    shortest_edge_px: int = Field(
        600, ge=0, description="Images are resized to this shortest edge; 0 keeps their own resolution ..."
    )
    longest_edge_px: int = Field(1333, ge=16, description="... but not beyond this longest edge.")
    rpn_batch: int = Field(256, ge=1, description="Anchors sampled per image for the RPN losses.")
    rpn_pre_nms_train: int = Field(12000, ge=1, description="Proposals before suppression, training.")
    rpn_post_nms_train: int = Field(2000, ge=1, description="Proposals after suppression, training.")
    rpn_pre_nms_test: int = Field(6000, ge=1, description="Proposals before suppression, teacher and tests.")
    rpn_post_nms_test: int = Field(300, ge=1, description="Proposals after suppression, teacher and tests.")
    rpn_nms: Fraction = Field(0.7, description="Overlap above which a proposal is suppressed.")
    pool_size: int = Field(14, ge=1, le=256, description="Side of the pooled region: 14 for c4, 7 for fpn and none.")
    roi_batch: int = Field(512, ge=1, description="Regions sampled per image for the head's losses.")
    roi_positive_fraction: Fraction = Field(0.25, description="Largest share of foreground among them.")
    box_smooth_l1_beta: NonNegativeFloat = Field(0.0, description="0 is plain L1.")
    test_score: Fraction = Field(0.05, description="Detections at or below this score are dropped.")
    test_nms: Fraction = Field(0.5, description="Overlap of two detections of a class above which the weaker goes.")
    test_detections: int = Field(100, ge=1, description="Detections per image at most.")
    other_keys: tuple[tuple[str, str | int | float | tuple[str | int | float, ...]], ...] | None = Field(
        None, description="Pairs of a key of detectron2 and its value, where a checkpoint asks for more; set by import."
    )

    @classmethod
    def conditional_defaults(cls, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the head of VGG-16 with its backbone."""
        return _VGG16_HEAD | dict(keys) if keys.get("backbone") == "vgg16" else keys
