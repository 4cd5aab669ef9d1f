"""Names of backbones and the preprocessing of their images, as cards hold it; imports no torch."""

from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, FiniteFloat, field_validator

from vision_core.config.schema import PositiveFloat, Section

BackboneName = Literal[
    "resnet10t", "resnet18", "resnet50", "densenet121", "densenet161", "lite0", "convnext_tiny", "vit_small"
]
BACKBONE_NAMES: tuple[BackboneName, ...] = get_args(BackboneName)


class Preprocessing(Section):
    """Preprocessing of a backbone's images, as in its card; other entries of the card are ignored."""

    model_config = ConfigDict(extra="ignore")

    values: Literal["0 to 1", "0 to 255"] = Field(
        "0 to 1", description="Range of pixel values to which mean and std belong."
    )
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = Field(description="Mean per channel, subtracted.")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        description="Standard deviation per channel, the divisor."
    )
    channel_order: Literal["rgb", "bgr"] = Field("rgb", description="Order of the channels, and of mean and std.")
    grey: Literal["repeat"] = Field("repeat", description="How one channel becomes three.")
    resize_px: int = Field(256, ge=1, description="Shortest side after resizing.")
    input_px: int = Field(224, ge=1, description="Side of the centre crop that the network sees.")

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _three(cls, given: Any) -> Any:  # noqa: ANN401 (not yet checked)
        return (given,) * 3 if isinstance(given, int | float) else given

    def in_bytes(self) -> "Preprocessing":
        """Convert mean and std to values from 0 to 255."""
        if self.values == "0 to 255":
            return self
        scaled = {name: tuple(255 * value for value in getattr(self, name)) for name in ("mean", "std")}
        return self.model_copy(update={"values": "0 to 255", **scaled})
