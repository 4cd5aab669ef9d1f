"""Settings of the images that pretraining reads, and of their views. Pydantic only."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from vision_core.config.schema import Data, Fraction, PositiveFloat, Section

Format = Literal["radimagenet", "folders", "csv", "medmnist", "dicom"]
Policy = Literal["none", "randaugment", "trivialaugment", "augmix", "autoaugment"]
_Share = Annotated[FiniteFloat, Field(gt=0, le=1)]


class Augmentation(Section):
    """Training view of an image; the defaults are the published recipe."""

    crop_area: tuple[_Share, _Share] = Field((0.08, 1.0), description="Share of the image that a crop has, from, to.")
    crop_aspect: tuple[PositiveFloat, PositiveFloat] = Field(
        (3 / 4, 4 / 3), description="Width over height of a crop, from, to."
    )
    flip: Fraction = Field(0.5, description="Probability of a mirror image, left to right.")
    policy: Policy = Field("none", description="A published augmentation policy after the flip.")
    erasing: Fraction = Field(0.0, description="Probability that a rectangle is erased to the mean grey.")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for name in ("crop_area", "crop_aspect"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} should go from the smaller to the larger value, got '{low:g}, {high:g}'")
        return self


class PretrainData(Data):
    """Images and their classes."""

    format: Format = Field(
        "folders",
        description="radimagenet: CT|MR/<anatomy>/<class>, US/<class> and RadiologyAI_<split>.csv. "
        "folders: <split>/<class>/<file>. csv: filename,label[,split][,patient][,modality]. "
        "medmnist: an .npz file. dicom: <split>/<class>/ with files at any depth, or a CSV in data.labels.",
    )
    labels: str = Field(
        "",
        description="CSV of the labels, relative to data.root; '{split}' stands for the list's name. "
        "Empty: <split>.csv, else labels.csv with a column 'split'.",
    )
    class_list: Path | None = Field(
        None, description="classes.json of an earlier run: the data must have these classes, in this order."
    )
    on_missing: Literal["refuse", "skip"] = Field("refuse", description="A listed file that does not exist.")
    on_missing_class: Literal["refuse", "note"] = Field("refuse", description="A class without an image in a list.")
    on_corrupt: Literal["refuse", "skip"] = Field(
        "refuse",
        description="refuse: headers and ends of files are checked before training, files of more than 8 bits are "
        "decoded, and one that fails stops the run. "
        "skip: every file is decoded once before training, and those that fail are left out.",
    )
    leave_out: Path | None = Field(
        None, description="List of images to leave out, as validate writes it: content hash and file, a line each."
    )
    cache: Path | None = Field(
        Path("runs/checked"),
        description="Folder that remembers checked and corrupt files, and holds arrays unpacked from .npz files; "
        "null remembers nothing.",
    )
    memory_mib: int = Field(2048, ge=1, description="Largest compressed array of an .npz file to hold in memory.")
    max_megapixels: PositiveFloat = Field(100.0, description="Largest image to decode, in millions of pixels.")
    image_px: int = Field(224, ge=8, description="Side of the square that the networks see.")
    resize_px: int = Field(256, ge=8, description="Shorter side of an image before its centre is cut out to be scored.")
    augment: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.resize_px < self.image_px:
            raise ValueError(f"resize_px should be at least image_px '{self.image_px}', got '{self.resize_px}'")
        return self


class StageData(PretrainData):
    """Images of a stage: lists for training, validation and report."""

    val_split: str | None = Field(
        "val",
        description="Labelled list that is scored between epochs; it chooses the epoch of a transfer, else nothing.",
    )
    eval_split: str | None = Field("test", description="Labelled list to report on; it chooses nothing.")
