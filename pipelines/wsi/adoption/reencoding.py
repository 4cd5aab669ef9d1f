"""Whether features made elsewhere are what they are said to be: a few tiles are encoded again and compared."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import DataError
from vision_core.randomness import key
from vision_core.slides.encoders.encoder import Encoder
from vision_core.slides.features.extraction import ExtractSettings, extract_features
from vision_core.slides.features.files import Features
from vision_core.slides.reading.slide import Slide
from vision_core.slides.settings import ReadSettings
from vision_core.slides.tiling import Tiles, reading

NUM_TILES = 3
LEAST_COSINE = 0.98  # resizing and rounding differ between programs; other weights or another scale fall far below


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What a tile is.

    Attributes:
        side: In pixels of level 0.
        tile_px: In pixels as it was read.
        mpp: Microns per pixel as it was read.
    """

    side: int
    tile_px: int
    mpp: float


def check_features(features: Features, slide: Slide, grid: Grid, encoder: Encoder, read: ReadSettings) -> float:
    """Encode three tiles again.

    Returns:
        The lowest cosine between old and new.

    Raises:
        DataError: They are not of this encoder, these weights or this scale.
    """
    if features.dim != encoder.dim:
        raise DataError(
            f"'{slide.path.name}': its features have '{features.dim}' values a tile, {encoder.name} gives "
            f"{encoder.dim}. Correct encoder.name or encoder.weights."
        )
    assert features.coords is not None
    places = _places(slide.path.name, len(features))
    level, read_px = reading(slide, grid.side, grid.tile_px)
    tiles = Tiles(
        corners=features.coords[places],
        side=grid.side,
        tile_px=grid.tile_px,
        mpp=grid.mpp,
        level=level,
        read_px=read_px,
    )
    again = extract_features(slide, tiles, encoder, ExtractSettings(read=read, storage="fp32", max_bad_tiles=0))
    cosine = float(_cosines(features.features[places], again.features[:]).min())
    if not cosine >= LEAST_COSINE:
        raise DataError(
            f"'{slide.path.name}': tiles encoded again by {encoder.name} are unlike its features (cosine "
            f"'{cosine:.3f}', expected {LEAST_COSINE} or more). Encoder, weights or microns per pixel are others than "
            "said, or the slide is."
        )
    return cosine


def _places(name: str, num_tiles: int) -> NDArray[np.int64]:
    generator = np.random.default_rng(key("re-encode", name))
    return np.sort(generator.choice(num_tiles, min(NUM_TILES, num_tiles), replace=False))


def _cosines(old: NDArray[Any], new: NDArray[Any]) -> NDArray[np.float64]:
    one, other = old.astype(np.float64), new.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: NDArray[np.float64] = (one * other).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines
