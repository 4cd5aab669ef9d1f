"""Settings of the ultrasound task; the defaults are the published pair of networks. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vision_core.backbones.settings import BackboneName
from vision_core.config.loading import replace
from vision_core.config.schema import Config, Data, Fraction, NonNegativeFloat, Optim, Section, Train, merged
from vision_core.segmentation.settings import THIN, FrameAware, SegmentationLoss, Segmenter

LabelMode = Literal["random", "vote", "mean", "combination"]
FrameLabel = Literal["observer_majority", "consensus_nonempty"]
LEAST_SIDE = 29  # below it the published screen has no pixel left
CONSENSUS_SHARE = 0.25  # the best published share of consensus in `combination`


class ScreenNetwork(Section):
    """Settings of a screen; the defaults are the published network of 26,464,801 parameters."""

    network: BackboneName = Field("densenet161", description="Network; densenet161 is the published one, for grey.")
    side_px: int | None = Field(
        None,
        ge=LEAST_SIDE,
        le=4096,
        description="Side of the square that frames are resized to; empty: their own size.",
    )
    imagenet: bool = Field(True, description="Start lite0 from ImageNet weights, which an installed package has.")


BEDSIDE = ScreenNetwork(network="lite0", side_px=128)


class Augmentation(Section):
    """Settings of the segmenter's augmentation; each step is drawn for each frame."""

    flip: Fraction = Field(0.3, description="Probability of a left-right flip.")
    affine: Fraction = Field(0.3, description="Probability of a rotation with shift, scale and shear.")
    degrees: NonNegativeFloat = Field(5.0, le=180, description="Largest rotation, and largest shear, in degrees.")
    shift: Fraction = Field(0.1, description="Largest shift as a share of height and width.")
    scale: float = Field(0.1, ge=0, lt=1, description="Largest change of scale, the same in both directions.")
    speckle: Fraction = Field(0.3, description="Probability of multiplicative noise.")
    gaussian: Fraction = Field(0.0, description="Probability of additive noise.")
    noise: NonNegativeFloat = Field(0.1, le=10, description="Standard deviation of both, at a z-scored image.")
    smooth: Fraction = Field(0.0, description="Probability of a blur of 0.25 to 1.5 pixels.")


class Labels(Section):
    """Settings of what several observers' masks say."""

    sampling: LabelMode = Field(
        "combination",
        description="Target of a training frame. random: an observer, drawn anew each time. vote: the majority. mean: "
        "the share of observers. combination: vote with probability consensus_share, else random.",
    )
    consensus_share: Fraction = Field(CONSENSUS_SHARE, description="Share of vote in combination.")
    presence: FrameLabel = Field(
        "observer_majority",
        description="Whether a frame shows the organ: most observers have a mask, or most agree on a pixel.",
    )


class Shares(Section):
    """Shares of the subjects where no lists are recorded."""

    train: Fraction = Field(0.6, description="Share of the list train.")
    val: Fraction = Field(0.2, description="Share of the list val.")
    test: Fraction = Field(0.2, description="Share of the list test.")


class UltrasoundData(Data):
    """Frames with the masks of their observers."""

    format: Literal["auto", "hdf5", "folders", "cines", "dicom"] = Field(
        "auto",
        description="hdf5: a file, or a folder of one, or of one for each list (train.h5). folders: SUBJECT/FRAME.png "
        "with FRAME_obs00.png. cines: SUBJECT/CINE.dcm, NIfTI or a video, with CINE_000_obs00.png; dicom: its earlier "
        "name. auto: what lies there.",
    )
    finding: Literal["b_lines", "pleura_lines"] | None = Field(
        None, description="Which lines of 3D Slicer's AnnotateUltrasound (CINE.RATER.json) are the masks."
    )
    outside: Literal["mask", "keep"] | None = Field(
        None,
        description="Pixels outside the sector, where text is burned in. mask: black for the networks. keep: as they "
        "are. Empty: mask in DICOM, NIfTI and videos; keep in HDF5 and images, which are cut as a rule.",
    )
    val_split: str = Field("val", description="List that chooses the epoch, and the threshold of the gate.")
    eval_split: str | None = Field("test", description="List to report on; it chooses nothing.")
    calibration_split: str | None = Field(
        None, description="List of further subjects for the control of missed frames by calibrate; it chooses no epoch."
    )
    splits: Path | None = Field(
        None,
        description="Recorded lists of subjects; empty: splits.json beside the data, and without one shares by seed.",
    )
    shares: Shares = Shares()
    split_seed: int = Field(0, ge=0, lt=2**63, description="Seed of the lists; both networks of a gate need the same.")
    folds: int | None = Field(
        None,
        ge=2,
        le=100,
        description="Networks of an ensemble: each is trained without one part of the subjects in split, and that part "
        "chooses its epoch, not val_split.",
    )
    fold: int | None = Field(None, ge=0, description="The one fold of a run, from 0; folds sets it.")
    frames_per_subject: Literal["auto", "one_random", "all"] = Field(
        "auto",
        description="Frames of a subject in an epoch of training. auto: one_random, as published, where frames are "
        "nested in subjects; all where the layout is flat.",
    )
    only_present: bool = Field(False, description="Train on frames that show the organ alone.")
    size_px: tuple[int, int] | None = Field(
        None, description="Height and width to which the segmenter's frames are resized; empty: their own."
    )
    classes: tuple[str, ...] = Field(("organ",), min_length=1, max_length=1, description="Name of the organ.")


class Gate(Section):
    """Settings of the gate at inference."""

    threshold: Fraction | None = Field(
        None, description="Frames with a score above it are segmented; empty: what calibrate chose, else 0.5."
    )
    by: Literal["cost", "risk"] = Field(
        "cost", description="Which threshold of calibrate: of least cost, or of a controlled share of missed frames."
    )


class Calibrate(Section):
    """Settings of the verb calibrate."""

    false_positive: NonNegativeFloat = Field(1.0, le=1e6, description="Cost of a frame with a mask and no organ.")
    false_negative: NonNegativeFloat = Field(1.0, le=1e6, description="Cost of a missed frame.")
    alpha: float = Field(0.1, gt=0, lt=1, description="Largest expected share of missed frames of a subject.")


class Results(Section):
    """Settings of ``predict``."""

    video: bool | None = Field(
        None, description="Also write a video of each cine with the outline of its masks, which reads the cine again."
    )


class UltrasoundConfig(Config):
    """Configuration of screens and segmenters of ultrasound frames."""

    task: ClassVar[str] = "ultrasound"
    at_inference: ClassVar[tuple[str, ...]] = ("segment", "gate.", "results.", "data.outside")
    own_data: ClassVar[str] = "data.root=YOUR_FRAMES.h5 method=segment"

    method: Literal["screen", "segment", "segment_frame_aware"] = Field(
        "segment",
        description="screen: a classifier of frames. segment: a segmenter. segment_frame_aware: a segmenter whose loss "
        "also asks whether the frame shows the organ.",
    )
    preset: Literal["published", "bedside"] = Field(
        "published", description="Networks that screen and segmenter leave open; bedside: small ones for 128 pixels."
    )
    segment: Path | None = Field(
        None,
        description="For predict, evaluate and calibrate with a screen: the segmenter behind its gate, a bundle, or a "
        "folder of masks of another tool, named as the frames.",
    )
    data: UltrasoundData = UltrasoundData()
    labels: Labels = Labels()
    train: Train = Train(epochs=200, batch_size=32, drop_last=True, eval_every=5, patience=5)
    optim: Optim = Optim(name="adam", lr=1e-3, weight_decay=0.0)
    screen: ScreenNetwork = ScreenNetwork()
    segmenter: Segmenter = Segmenter()
    loss: SegmentationLoss = SegmentationLoss()
    augment: Augmentation = Augmentation()
    gate: Gate = Gate()
    calibrate: Calibrate = Calibrate()
    results: Results = Results()

    @classmethod
    def conditional_defaults(cls, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the networks of a preset, and what the method decides."""
        defaults: dict[str, Any] = {}
        if keys.get("preset") == "bedside":
            defaults = {"screen": BEDSIDE.model_dump(), "segmenter": THIN.model_dump()}
        if keys.get("method") == "segment_frame_aware":
            defaults["loss"] = {"frame_aware": FrameAware().model_dump()}
        if keys.get("method") == "screen":
            defaults["train"] = {"patience": 0}  # as published
        return merged(defaults, keys)

    @property
    def is_screen(self) -> bool:
        """Whether this run trains a classifier of frames."""
        return self.method == "screen"

    def expand(self) -> dict[str, Config]:
        """Expand to a run for each fold, with a seed of its own: networks of an ensemble start apart."""
        if not self.data.folds or self.data.fold is not None:
            return {"": self}
        return {
            f"fold-{fold}": replace(self, {"data.fold": fold, "train.seed": self.train.seed + fold})
            for fold in range(self.data.folds)
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.data.fold is not None and self.data.fold >= (self.data.folds or 0):
            problems.append(
                f"data.fold '{self.data.fold}' is none of data.folds '{self.data.folds}', counted from 0. "
                "Set data.folds alone."
            )
        if bool(self.loss.frame_aware.weight) != (self.method == "segment_frame_aware"):
            problems.append(
                f"loss.frame_aware.weight '{self.loss.frame_aware.weight:g}' does not fit method '{self.method}': "
                "segment_frame_aware needs one above 0, the others 0."
            )
        if self.train.batch_size < 2:
            problems.append(
                "train.batch_size '1': batch normalisation needs at least 2 frames a step and process. Set it to 2."
            )
        if self.data.size_px and min(self.data.size_px) < 1:
            problems.append(f"data.size_px '{self.data.size_px}' is no size. Give height and width in pixels.")
        if problems:
            raise ValueError(" ".join(problems))
        return self
