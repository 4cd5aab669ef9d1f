"""Configuration section of the strong view. Pydantic only."""

from typing import Literal

from pydantic import Field

from vision_core.config.schema import Section


class StrongViewSettings(Section):
    """Settings of the strong view of an image."""

    kind: Literal["published", "stock", "none"] = Field(
        "published",
        description="published: the chain of the source-free benchmarks. stock: a conventional albumentations chain. "
        "none: the weak view itself.",
    )
    channel_order: Literal["bgr_as_rgb", "rgb"] = Field(
        "bgr_as_rgb", description="bgr_as_rgb: colours are changed with red and blue exchanged, as published."
    )
    noise: Literal["wrap", "clip"] = Field(
        "wrap", description="How erasing noise outside [0, 1] becomes a byte: wrapped around, as published, or clipped."
    )
