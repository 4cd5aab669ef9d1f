"""Settings of open-vocabulary detection; the defaults are MarvelOVD on COCO as released."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from vision_core.config.schema import Config, Fraction, Optim, PositiveFloat, Section, Train, merged
from vision_core.detection.settings import DetectionData, DetectorSettings
from vision_core.images.augmentation_settings import StrongViewSettings

# Differences between the program, whose behaviour is the default, and the paper.
_PAPER: dict[str, Any] = {
    "classifier": {"background": "learned"},
    "marvel": {
        "theta_burn": 0.8,
        "burn_in_last_iter": 499,
        "novelty_norm": "candidates",
        "reweight_in_burn_in": True,
        "weight_box_loss": True,
    },
    "strong_view": {"channel_order": "rgb"},
    "proposals": {"one_ratio": False},
}
# The baseline, from which each step of the ladder differs by one switch.
_VL_PLM: dict[str, Any] = {
    "marvel": {
        "weak_strong": False,
        "stratified": False,
        "mining": False,
        "reweighting": False,
        "box_loss_on": "base",
    },
    "candidates": {"fusion": "mean", "threshold": 0.8},
}
_IMAGE_TEXT: dict[str, Any] = {
    "train": {"epochs": 1000, "max_steps": 400, "batch_size": 96, "save_every": 100},
    "optim": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "warmup_steps": 0},
}
PYRAMID = DetectorSettings(
    neck="fpn",
    pool_size=7,
    anchor_sizes=((32,), (64,), (128,), (256,), (512,)),
    shortest_edge_px=800,
    rpn_pre_nms_train=2000,
    rpn_post_nms_train=1000,
    rpn_pre_nms_test=1000,
    rpn_post_nms_test=1000,
)


class OvdData(DetectionData):
    """Data set with base and novel classes; ``data.classes`` holds both."""

    format: Literal["voc", "coco", "images"] = Field(
        "coco",
        description="coco: a folder of images with <split>.json. voc: Annotations, ImageSets/Main, JPEGImages. images: "
        "a plain folder, no labels.",
    )
    novel: tuple[str, ...] = Field(
        (), description="Names of the novel classes: their boxes are never read in training, only scored."
    )
    evaluator: Literal["lvis"] | None = Field(
        None,
        description="lvis: score as LVIS does, federated; without data.classes, those of the index, rare ones novel. "
        "Empty: AP50 of COCO.",
    )
    shortest_edges_px: tuple[int, ...] = Field(
        (640, 672, 704, 736, 768, 800),
        description="Shortest edges of training images, drawn evenly; empty: that of the detector.",
    )


class Classifier(Section):
    """Settings of the text classifier."""

    background: Literal["zero", "learned"] = Field(
        "zero", description="Embedding of background. zero: its logit is 0, as released. learned: as the paper says."
    )
    normalise: bool = Field(False, description="Ours: cosines over a temperature; as released, plain products.")
    temperature: PositiveFloat = Field(0.01, description="Of the cosines, where normalise is set.")


class ImageText(Section):
    """Settings of the image–text model."""

    kind: Literal["compact", "clip"] = Field(
        "clip", description="clip: a model of open_clip from a local file. compact: a small one that this task trains."
    )
    name: str = Field("ViT-B-32-quickgelu", description="Configuration of open_clip, for kind clip.")
    tag: str = Field("openai", description="Where the weights of kind clip are from, by open_clip's name; or own.")
    weights: Path | None = Field(None, description="File of kind clip, bundle of kind compact.")
    temperature: PositiveFloat = Field(0.01, description="Divides the cosines between crops and names.")
    crop_scales: tuple[PositiveFloat, ...] = Field((1.0, 1.5), min_length=1, description="Crops of a box, averaged.")
    crop_mode: Literal["center", "squash", "pad"] = Field(
        "center", description="How a crop becomes a square. center, as published: long boxes lose their ends."
    )
    batch_size: int = Field(256, ge=1, description="Crops in one pass.")


class Proposals(Section):
    """Settings of class-agnostic proposals, for pseudo-label."""

    weights: Path | None = Field(None, description="Bundle of a generator, trained with method=proposals.")
    rpn_nms: Fraction = Field(0.3, description="Overlap above which a proposal is suppressed.")
    count: int = Field(100, ge=1, description="Boxes kept an image, by objectness.")
    refinements: int = Field(10, ge=0, description="Passes through the box head.")
    one_ratio: bool = Field(True, description="Boxes go back to the image by the ratio of the heights, as released.")
    min_side_px: PositiveFloat = Field(5.0, description="Boxes that are narrower or lower once clipped are dropped.")


class Candidates(Section):
    """Selection of candidates among scored proposals."""

    file: Path | None = Field(None, description="Pseudo-labels to train on, as pseudo-label writes them.")
    fusion: Literal["clip", "mean"] = Field(
        "clip", description="clip: score of the image–text model alone. mean: with objectness."
    )
    rpn_weight: Fraction = Field(0.5, description="Share of objectness, where fusion is mean.")
    threshold: Fraction = Field(0.5, description="Candidates have a score strictly above.")
    nms: Fraction = Field(0.6, description="Overlap of two of a class above which the weaker goes.")


class Marvel(Section):
    """Settings of MarvelOVD; the first four are the ladder from the baseline to the whole method."""

    weak_strong: bool = Field(True, description="Train on a weak and a strong view; else on the weak one.")
    stratified: bool = Field(True, description="Match regions with base boxes first; else all boxes alike.")
    mining: bool = Field(True, description="Choose the candidates at every step; else all are labels.")
    reweighting: bool = Field(True, description="Weigh regions by label and weak view; else by the label's score.")
    burn_in_last_iter: int = Field(500, ge=-1, description="Last iteration, from 0, of the burn-in; -1: none.")
    theta_burn: Fraction = Field(0.9, description="Least score of a candidate during the burn-in.")
    clip_weight: Fraction = Field(0.5, description="Share of the image–text score in mining; the rest is novelty.")
    delta: Fraction = Field(0.9, description="Least mined score of a pseudo-label.")
    novelty_norm: Literal["all", "candidates"] = Field("all", description="Boxes over which novelty is relative.")
    min_novelty: Fraction = Field(0.0, description="Ours: least absolute novelty of a pseudo-label; 0 drops none.")
    score_weight: Fraction = Field(0.5, description="Share of the mined score in a region's weight.")
    weight_scale: PositiveFloat = Field(2.0, description="Factor of a region's weight.")
    reweight_in_burn_in: bool = Field(False, description="Weigh regions by the weak view in the burn-in too.")
    roi_iou: Fraction = Field(0.5, description="Least overlap of a region with its box, inclusive.")
    box_loss_on: Literal["all", "base"] = Field("all", description="Regions that the box loss is made of.")
    weight_box_loss: bool = Field(False, description="Weigh the box loss as the classification.")
    add_novelty: bool = Field(False, description="Add a region's own novelty to its weight, as VL-PLM's program does.")
    ema_keep_rate: Fraction | None = Field(
        None,
        description="Ours: an average of the weights judges candidates and regions, and keeps this share of itself at "
        "every step after the burn-in, such as 0.999; empty, as published: the weights themselves judge.",
    )
    legacy_base_from_confidence: bool = Field(
        False, description="Take candidates of score 1 for base boxes, as the program does by mistake."
    )


class Predict(Section):
    """Settings of typed names."""

    classes: str | None = Field(None, description="Names to detect, separated by commas; null: those of the training.")
    classes_file: Path | None = Field(None, description="List of names: a line each, synonyms behind commas.")
    negatives: str | None = Field(None, description="Names that compete, and are not shown.")
    vocabulary: Literal["open", "closed"] = Field(
        "open", description="open: typed names compete with the training's. closed: with one another alone."
    )
    threshold_on: Literal["objects"] | None = Field(
        None,
        description="Ours. objects: a typed name has to exceed its scores on labelled objects of the training too, but "
        "for those of the name that it is or resembles most; empty: on background alone.",
    )


class OvdConfig(Config):
    """Configuration of open-vocabulary detection."""

    task: ClassVar[str] = "ovd"
    at_inference: ClassVar[tuple[str, ...]] = ("predict.", "image_text.")
    own_data: ClassVar[str] = (
        "data.root=YOUR_IMAGES 'data.classes=[...]' 'data.novel=[...]' candidates.file=pseudo_labels.json"
    )
    predict_options: ClassVar[Mapping[str, tuple[str, str]]] = {
        "--classes": ("predict.classes", "names to detect, separated by commas"),
        "--classes-file": ("predict.classes_file", "list of names: a line each, synonyms behind commas"),
        "--not": ("predict.negatives", "names that compete and are not shown"),
    }
    method: Literal["image_text", "proposals", "vl_plm", "marvel"] = Field(
        "marvel",
        description="image_text: train the compact image–text model. proposals: train the class-agnostic generator. "
        "vl_plm: learn fixed pseudo-labels. marvel: choose and weigh them at every step.",
    )
    profile: Literal["reference", "paper"] = Field(
        "reference", description="Where program and paper differ. reference: as the program does."
    )
    data: OvdData = OvdData()
    detector: DetectorSettings = Field(PYRAMID, description="Architecture.")
    classifier: Classifier = Classifier()
    image_text: ImageText = ImageText()
    proposals: Proposals = Proposals()
    candidates: Candidates = Candidates()
    marvel: Marvel = Marvel()
    predict: Predict = Predict()
    strong_view: StrongViewSettings = StrongViewSettings()
    train: Train = Train(max_steps=90_001, epochs=14, batch_size=16, save_every=5000)
    optim: Optim = Optim(
        lr=0.02, schedule="warmup_multistep", warmup_steps=1000, warmup_start=1e-3, milestones=(60_000, 80_000)
    )

    @classmethod
    def conditional_defaults(cls, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the defaults of ``profile`` and ``method``; given keys win."""
        below = _PAPER if keys.get("profile") == "paper" else {}
        below = merged(below, {"vl_plm": _VL_PLM, "image_text": _IMAGE_TEXT}.get(str(keys.get("method")), {}))
        return merged(below, keys)
