"""Settings of noise-mask pretraining; the defaults are the released recipe at 224 pixels. Pydantic only."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vision_core.settings import Fraction, NonNegativeFloat, PositiveFloat, Section

PolicyMode = Literal["released", "reinforce", "unlearned", "none"]
PolicyInput = Literal[224, 112]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"should be odd, got '{value}'")
    return value


class Mask(Section):
    """From sampled cells to the mask that multiplies the image."""

    grid: int = Field(64, ge=1, description="Cells along a side of the mask.")
    kernel: Annotated[int, AfterValidator(_odd)] = Field(13, ge=1, description="Side of the blur, in pixels; odd.")
    sigma: PositiveFloat = Field(6.0, description="Standard deviation of the blur, in pixels.")
    unlearned_concentration: PositiveFloat = Field(
        1.6, description="Both Beta concentrations of every cell where the policy is unlearned."
    )


class Bases(Section):
    """The running means that anchor the policy's outputs."""

    share: Fraction = Field(
        0.9, description="Share of the running mean in a concentration; the network gives the rest."
    )
    keep_rate: Fraction = Field(0.99, description="Share of itself that the running mean keeps at a step.")


class Released(Section):
    """The objective of the released implementation."""

    scale_classifier: bool = Field(
        True,
        description="Scale the classifier's gradient by the mask's density, about 8.5 times at grid 64, as released. "
        "False is the control.",
    )


class Reinforce(Section):
    """Ours: the score-function estimator with a reward for each image."""

    baseline: Literal["none", "batch_mean", "leave_one_out", "ema"] = Field(
        "leave_one_out", description="What is subtracted from the reward of an image."
    )
    baseline_keep_rate: Fraction = Field(0.9, description="Share of itself that the ema baseline keeps at a step.")
    normalise: bool = Field(False, description="Divide the advantages by their standard deviation.")
    per_cell: bool = Field(
        True, description="Mean of the cells' log-densities in place of their sum: the same for every grid."
    )
    entropy_weight: NonNegativeFloat = Field(0.0, description="Weight of the entropy bonus.")


class Mixing(Section):
    """Mixing pairs of training images; off in the published recipe."""

    mixup: NonNegativeFloat = Field(0.0, description="Beta parameter of mixup's shares; 0 is off.")
    cutmix: NonNegativeFloat = Field(0.0, description="Beta parameter of cutmix's shares; 0 is off.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Probability that is taken from the label and spread over all classes."
    )
