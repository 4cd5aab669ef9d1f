"""Sections of the configuration about slides, shared by tasks; imports pydantic alone."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from vision_core.config.schema import Fraction, Section

MIN_MPP, MAX_MPP = 0.05, 20.0
Mpp = Annotated[FiniteFloat, Field(ge=MIN_MPP, le=MAX_MPP)]


class TissueSettings(Section):
    """Settings of the segmentation of tissue."""

    preset: Literal["default", "bwh_biopsy", "nsclc", "tcga"] = Field(
        "default",
        description="default: Otsu threshold, for any stain. bwh_biopsy, nsclc, tcga: the presets that MHIM-MIL was "
        "published with for CAMELYON, TCGA lung and other TCGA.",
    )
    regions: Path | None = Field(
        None,
        description="Folder of edited masks, '<slide>.tissue.geojson' each, in folders like the slides' where two are "
        "called alike; a slide without one is segmented.",
    )


class TileSettings(Section):
    """Settings of the tile grid."""

    layout: Literal["mpp", "level0_512", "level0_256"] = Field(
        "mpp",
        description="mpp: tiles of tile_px pixels at mpp. level0_512, level0_256: that many pixels of level 0, "
        "whatever the scanner, on CLAM's grid.",
    )
    tile_px: int = Field(256, ge=16, le=8192, description="Side of a tile in pixels, at mpp.")
    mpp: Mpp = Field(0.5, description="Microns per pixel of the tiles.")
    overlap_px: int = Field(0, ge=0, description="Overlap of neighbouring tiles in pixels.")
    least_tissue: Fraction = Field(0.5, description="Share of a tile that must be tissue.")


class EncoderSettings(Section):
    """Settings of the encoder of tiles."""

    name: str = Field(
        "lite0",
        description="lite0 (shipped), resnet50 (truncated after its third stage, 1024 features), timm:NAME, "
        "torchvision:NAME, uni, conch or plip (your own copy of their weights), or bundle.",
    )
    weights: Path | None = Field(None, description="Local file of weights, or the bundle; nothing is downloaded.")
    input_px: int = Field(224, ge=32, le=2048, description="Side to which a tile is resized for the network.")
    batch_size: int = Field(64, ge=1, description="Tiles in a batch.")
    storage: Literal["fp16", "fp32"] = Field("fp16", description="Precision in which features are stored.")


class ReadSettings(Section):
    """Settings of reading slides."""

    mpp: Mpp | None = Field(
        None,
        description="Microns per pixel at level 0 of all slides, in place of what their files say; a column mpp of the "
        "CSV overrides it.",
    )
    max_bad_tiles: int = Field(
        0, ge=0, description="Number of unreadable tiles that a slide may have; they are left out."
    )
    fast: bool = Field(True, description="Decode JPEG tiles directly where that gives OpenSlide's pixels.")
    threads: int = Field(2, ge=1, le=64, description="Reading threads per slide.")
