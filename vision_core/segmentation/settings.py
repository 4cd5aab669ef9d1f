"""Settings of a segmenter and its loss; imports no torch."""

from typing import Literal

from pydantic import Field

from vision_core.config.schema import Fraction, NonNegativeFloat, Section


class Segmenter(Section):
    """Settings of the residual U-Net; the defaults are the published network of 7,781,329 parameters."""

    layers: int = Field(5, ge=1, le=8, description="Times that the U-Net halves the image.")
    first: int = Field(16, ge=1, le=256, description="Channels of the first layer; each layer below has twice as many.")
    squeeze: Literal[1, 2, 4] = Field(
        1,
        description="Side of the square of pixels that become channels before the network; 1: no such step.",
    )
    gate: Literal["none", "attention"] = Field("none", description="Gates on what the encoder hands to the decoder.")


THIN = Segmenter(layers=4, first=12, squeeze=2)  # a seventh of the multiplications of the published one


class FrameAware(Section):
    """Settings of the loss that also asks whether a frame shows the object."""

    weight: NonNegativeFloat = Field(
        0.5, le=1000, description="Weight of the frame's term beside Dice; 0 leaves it out."
    )
    present_weight: NonNegativeFloat = Field(1.0, le=1000, description="Weight of frames that show the object.")
    absent_weight: NonNegativeFloat = Field(1.0, le=1000, description="Weight of frames that do not.")
    top_share: Fraction = Field(
        0.0, description="Share of a frame's highest pixels whose mean is its probability; 0 takes the highest alone."
    )


class SegmentationLoss(Section):
    """Settings of the loss of a segmenter."""

    reduction: Literal["batch", "per_image"] = Field(
        "batch", description="Dice over all pixels of a batch, or the mean of the images' own."
    )
    frame_aware: FrameAware = FrameAware(weight=0.0)
