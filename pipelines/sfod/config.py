"""Settings of source-free adaptation; the defaults are LPLD on Cityscapes to Foggy Cityscapes as released."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vision_core.config.schema import Config, Fraction, NonNegativeFloat, PositiveFloat, Section, Teacher, merged
from vision_core.detection.settings import DetectionData, DetectorSettings
from vision_core.images.augmentation_settings import StrongViewSettings

_PRESETS: dict[object, dict[str, Any]] = {
    "small": {  # found on other shifts of other pixels: docs/sfod.md
        "train": {"epochs": 200, "max_steps": 90, "batch_size": 2, "save_every": 30, "log_every": 5},
        "optim": {"clip_norm": 5.0},
        "teacher": {"every": "step", "keep_rate": 0.99},
        "pseudo_labels": {"threshold": 0.6},
    }
}
Method = Literal["source", "bn", "mt", "lpld", "fixed_pl", "wscol_core", "wsco_full", "wsco_full+lpld", "oracle"]
# Methods trained on labels; methods trained on pseudo labels; those of them with terms of WSCoL.
SUPERVISED = frozenset({"source", "oracle"})
CONTRASTING = frozenset({"wscol_core", "wsco_full", "wsco_full+lpld"})
TEACHING = frozenset({"mt", "lpld", "fixed_pl"}) | CONTRASTING
_KEPT_TEACHERS = 10  # to select from
_WSCOL: dict[str, Any] = {  # as released
    "train": {"epochs": 20},
    "teacher": {"keep_rate": 0.9},
    "pseudo_labels": {"threshold": 0.9, "skip_empty_hpl": True, "append_boxes": True},
    "wscol": {},
}
_METHODS: dict[object, dict[str, Any]] = {
    **dict.fromkeys(CONTRASTING, _WSCOL),
    "wscol_core": _WSCOL | {"wscol": {"hard_positives": False, "instance_weight": 0.0, "gradient_weight": 0.0}},
}


def _score_or_auto(value: object) -> object:
    try:
        number = float("nan" if isinstance(value, bool) else str(value))
    except ValueError:
        number = float("nan")
    if value != "auto" and not 0 <= number <= 1:
        raise ValueError("should be a number from 0 to 1, or auto")
    return value


class PseudoLabels(Section):
    """Selection of the teacher's detections that the student learns as labels."""

    threshold: Annotated[float | Literal["auto"], BeforeValidator(_score_or_auto)] = Field(
        0.7,
        description="Detections with a score strictly above are pseudo labels. auto: the score from which on nine of "
        "ten detections of the source are right on its validation list, as its card tells.",
    )
    per_image: PositiveFloat | None = Field(
        None,
        description="Ours: the threshold is the score that this many detections an image of the source exceed on the "
        "images to adapt to (64 at most, evenly spaced), whatever the scores are; empty: threshold.",
    )
    on_nothing: Literal["stop", "continue"] = Field(
        "stop",
        description="A teacher without any pseudo label in the first 200 images, epoch or run. stop: the run ends, "
        "and says what to change. continue: it goes on with an alarm, as published code does.",
    )
    skip_empty_hpl: bool = Field(
        False, description="Skip an image without pseudo labels; else all of it counts as background."
    )
    collapse_guard: bool = Field(
        True,
        description="Ours: when pseudo labels, or the boxes on eight images that are looked at now and then, die out "
        "or fall into one class, deliver the teacher from before.",
    )
    append_boxes: bool = Field(False, description="Add pseudo boxes to the student's proposals.")

    @model_validator(mode="after")
    def _has_one_threshold(self) -> Self:
        if self.per_image is not None and self.threshold == "auto":
            raise ValueError("pseudo_labels.threshold is auto, and per_image sets it too: leave one of them out")
        return self


class Lpld(Section):
    """Settings of low-confidence pseudo label distillation."""

    iou: Fraction = Field(0.4, description="Largest overlap of a candidate with any pseudo label.")
    foreground: Fraction = Field(0.9, description="Least confidence among the foreground classes alone.")
    background: Fraction = Field(0.99, description="Largest probability of background.")
    epsilon: PositiveFloat = Field(1e-9, description="Background entry of the soft label.")
    weight: NonNegativeFloat = Field(0.1, description="Weight of the loss.")
    lpl_without_hpl: bool = Field(False, description="Ours: distil also where there is no pseudo label.")
    lpl_nms_iou: Fraction | None = Field(None, description="Ours: suppress candidates that overlap a surer one more.")
    clip_decoded_boxes: bool = Field(False, description="Ours: clip the decoded boxes to the image.")


class Wscol(Section):
    """Settings of WSCoL and WSCo: contrast between categories on top of the mean teacher.

    The defaults are those of ``wsco_full``; the method ``wscol_core`` switches hard positives, instances and gradients
    off.
    """

    consistency_weight: NonNegativeFloat = Field(1.0, description="Weight of the divergence from the teacher's scores.")
    contrast_weight: NonNegativeFloat = Field(0.5, description="Weight of the contrast between categories.")
    instance_weight: NonNegativeFloat = Field(0.01, description="Weight of the contrast between instances.")
    gradient_weight: NonNegativeFloat = Field(0.1, description="Weight of the consistency of gradients.")
    hard_positives: bool = Field(True, description="Leave pairs of a category that are not near each other out.")
    alpha: Fraction = Field(0.0, description="Share of these pairs in the contrast.")
    temperature: PositiveFloat = Field(0.07, description="Temperature of both contrasts.")
    dim: int = Field(512, ge=1, le=65536, description="Width of the mapped features where maps have 2048 channels.")
    bank: int = Field(10, ge=1, le=1000, description="Maps of pseudo labels kept of each class.")
    prototype_rate: Fraction = Field(0.4, description="Share of the new mean in a prototype.")
    distance: Literal["euclid", "cosine"] = Field("euclid", description="Of proposals and prototypes.")
    steps: int = Field(4, ge=1, le=1000, description="Rounds of clustering around prototypes.")
    warm_epochs: int = Field(1, ge=0, description="First epochs in which the detector's features are clustered too.")
    warm_steps: int = Field(2, ge=1, le=1000, description="Rounds of that.")
    objectness: Fraction = Field(0.5, description="Proposals up to this objectness do not count for the variance.")
    variance: NonNegativeFloat = Field(
        20.0, description="Variance of the number of proposals above which background takes no part in the contrast."
    )
    released_instance_ids: bool = Field(
        False, description="Number background among the instances as released, where it can fall together with one."
    )
    mask_zero_rows: bool = Field(False, description="Ours: leave gradients of units that never fire out.")


class Verdict(Section):
    """Settings of numbers without labels."""

    source_images: int = Field(
        32,
        ge=0,
        le=100_000,
        description="Images of the validation list of method source on which the statistics are made that its bundle "
        "keeps for later comparisons; 0: none.",
    )
    images: int = Field(
        16,
        ge=0,
        le=100_000,
        description="Images of the target on which the report of an adaptation without a labelled list compares the "
        "detector before and after, evenly spaced; 0: none.",
    )
    select: bool | None = Field(
        None,
        description="true: a fifth of the target's images (at least 8) is kept out of adaptation, and on them numbers "
        "without labels are computed of the source and each of the kept teachers (train.keep_teachers, then 10), of "
        "which a fitted rule chooses one. With fewer than 40 images all are used for both.",
    )


class Results(Section):
    """Settings of ``predict``."""

    index: Path | None = Field(
        None,
        description="COCO index whose image ids detections.coco.json takes; empty: 1, 2, … by input.",
    )


class SfodConfig(Config):
    """Configuration of source-free domain adaptive object detection."""

    task: ClassVar[str] = "sfod"
    at_inference: ClassVar[tuple[str, ...]] = ("results.",)
    by_name: ClassVar[tuple[str, ...]] = ("results.index",)
    demo_format: ClassVar[str] = "voc"
    own_data: ClassVar[str] = "data.root=YOUR_IMAGES source.weights=BUNDLE preset=small"
    own_source: ClassVar[tuple[str, ...]] = (
        "import-weights CHECKPOINT.pth --out BUNDLE 'data.classes=[...]'",
        "train method=source data.root=LABELLED data.eval_split=val --out SOURCE   # BUNDLE is then SOURCE/model",
    )
    method: Method = Field(
        "lpld",
        description="source: train a detector on labels. bn: re-estimate normalisation statistics. mt: mean teacher. "
        "lpld: mean teacher and low-confidence distillation. fixed_pl: pseudo labels written once by the source "
        "model. wscol_core: mean teacher and contrast between categories (WSCoL). wsco_full: with hard positives, "
        "instances and gradients too (WSCo). wsco_full+lpld: both. oracle: train on labels of the target, for tables "
        "only.",
    )
    preset: Literal["small"] | None = Field(
        None,
        description="Other defaults, over which given keys win. small: a short adaptation to a few dozen images, as in "
        "the demo; empty: as published.",
    )
    data: DetectionData = DetectionData()
    detector: DetectorSettings | None = Field(
        None, description="Architecture, for method source; adaptation takes it from source.weights."
    )
    teacher: Teacher = Teacher()
    strong_view: StrongViewSettings = StrongViewSettings()
    pseudo_labels: PseudoLabels = PseudoLabels()
    lpld: Lpld = Lpld()
    wscol: Wscol | None = Field(None, description="Settings of WSCoL, for its methods.")
    verdict: Verdict = Verdict()
    results: Results = Results()

    @classmethod
    def conditional_defaults(cls, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the defaults of ``method``, and over them those of ``preset``."""
        method, preset = keys.get("method"), keys.get("preset")
        defaults = _METHODS.get(method, {}) if isinstance(method, str) else {}
        if "wscol" in defaults and keys.get("wscol") is None:  # as in settings that were those of another method
            keys = {name: value for name, value in keys.items() if name != "wscol"}
        if isinstance(preset, str):
            defaults = merged(defaults, _PRESETS.get(preset, {}))
        verdict = keys.get("verdict")
        if isinstance(verdict, Mapping) and verdict.get("select") is True:
            defaults = merged(defaults, {"train": {"keep_teachers": _KEPT_TEACHERS}})
        return merged(defaults, keys) if defaults else keys

    @model_validator(mode="after")
    def _can_select(self) -> Self:
        if self.verdict.select and self.method not in TEACHING:
            raise ValueError(f"verdict.select chooses among teachers, and method '{self.method}' has none")
        if self.verdict.select and not self.train.keep_teachers:
            raise ValueError("verdict.select chooses among kept teachers: give train.keep_teachers=10")
        return self
