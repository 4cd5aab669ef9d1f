"""Settings of source-free adaptation; the defaults are LPLD on Cityscapes to Foggy Cityscapes as released."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

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
        description="Ours: when pseudo labels die out or fall into one class, deliver the teacher of the epoch before.",
    )
    append_boxes: bool = Field(False, description="Add pseudo boxes to the student's proposals.")


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
    method: Literal["source", "bn", "mt", "lpld"] = Field(
        "lpld",
        description="source: train a detector on labels. bn: re-estimate normalisation statistics. "
        "mt: mean teacher. lpld: mean teacher and low-confidence distillation.",
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
    results: Results = Results()

    @classmethod
    def conditional_defaults(cls, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the defaults of ``preset``."""
        preset = keys.get("preset")
        return merged(_PRESETS.get(preset, {}), keys) if isinstance(preset, str) else keys
