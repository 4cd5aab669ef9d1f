"""Verification of foreign features: a few tiles are encoded again and compared."""

from dataclasses import dataclass

import numpy as np

from vision_core.errors import DataError
from vision_core.randomness import key
from vision_core.slides.encoders.encoder import Encoder
from vision_core.slides.features.extraction import ExtractionSettings, extract_features
from vision_core.slides.features.files import Features
from vision_core.slides.reading.slide import Slide
from vision_core.slides.settings import ReadSettings
from vision_core.slides.tiling import Tiles, reading_level

NUM_TILES = 3
MIN_COSINE = 0.98  # resizing and rounding differ between programs; other weights or another scale fall far below


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Size and scale of tiles.

    Attributes:
        side: Side in pixels of level 0.
        tile_px: Side in pixels as read.
        mpp: Microns per pixel as read.
    """

    side: int
    tile_px: int
    mpp: float


def compare_features(features: Features, slide: Slide, grid: Grid, encoder: Encoder, read: ReadSettings) -> float:
    """Compare stored features with three tiles encoded again.

    Returns:
        Lowest cosine between old and new features.

    Raises:
        DataError: The features are of another encoder, other weights or another scale.
    """
    if features.dim != encoder.dim:
        raise DataError(
            f"'{slide.path.name}': its features have '{features.dim}' values a tile, {encoder.name} gives "
            f"{encoder.dim}. Correct encoder.name or encoder.weights."
        )
    assert features.coords is not None
    generator = np.random.default_rng(key("re-encode", slide.path.name))
    rows = np.sort(generator.choice(len(features), min(NUM_TILES, len(features)), replace=False))
    level, read_px = reading_level(slide, grid.side, grid.tile_px)
    tiles = Tiles(
        corners=features.coords[rows],
        side=grid.side,
        tile_px=grid.tile_px,
        mpp=grid.mpp,
        level=level,
        read_px=read_px,
    )
    again = extract_features(slide, tiles, encoder, ExtractionSettings(read=read, storage="fp32", max_bad_tiles=0))
    old, new = features.features[rows].astype(np.float64), again.features[:].astype(np.float64)
    norms = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    cosine = float(((old * new).sum(axis=1) / np.maximum(norms, 1e-12)).min())
    if not cosine >= MIN_COSINE:
        raise DataError(
            f"'{slide.path.name}': tiles encoded again by {encoder.name} are unlike its features (cosine "
            f"'{cosine:.3f}', expected {MIN_COSINE} or more). The encoder, its weights, the microns per "
            "pixel or the slide differ from those of the features."
        )
    return cosine
