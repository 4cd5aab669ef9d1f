"""Settings of source-free adaptation; the defaults are LPLD on Cityscapes to Foggy Cityscapes as released."""

from typing import ClassVar, Literal

from pydantic import Field

from vision_core.config.schema import Config, Fraction, NonNegativeFloat, PositiveFloat, Section, Teacher
from vision_core.detection.settings import DetectionData, DetectorSettings
from vision_core.images.augmentation_settings import StrongViewSettings


class PseudoLabels(Section):
    """Selection of the teacher's detections that the student learns as labels."""

    threshold: Fraction = Field(0.7, description="Detections with a score strictly above are pseudo labels.")
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


class SfodConfig(Config):
    """Configuration of source-free domain adaptive object detection."""

    task: ClassVar[str] = "sfod"
    method: Literal["source", "bn", "mt", "lpld"] = Field(
        "lpld",
        description="source: train a detector on labels. bn: re-estimate normalisation statistics. "
        "mt: mean teacher. lpld: mean teacher and low-confidence distillation.",
    )
    data: DetectionData = DetectionData()
    detector: DetectorSettings | None = Field(
        None, description="Architecture, for method source; adaptation takes it from source.weights."
    )
    teacher: Teacher = Teacher()
    strong_view: StrongViewSettings = StrongViewSettings()
    pseudo_labels: PseudoLabels = PseudoLabels()
    lpld: Lpld = Lpld()
