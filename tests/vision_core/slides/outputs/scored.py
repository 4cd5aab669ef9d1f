"""A result to draw: tiles of ten pixels on a slide of 40 x 20, unless told otherwise."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vision_core.results import SlideResult


def scored(tiles: Sequence[tuple[int, int]], scores: Sequence[float], **changes: Any) -> SlideResult:  # noqa: ANN401
    fields: dict[str, Any] = {
        "slide": "patient.svs",
        "size": (20, 40),
        "mpp": 0.5,
        "classes": ("normal", "tumour"),
        "probabilities": np.array([0.25, 0.75] if len(tiles) else [], np.float32),
        "category": "tumour" if len(tiles) else "no tissue",
        "tiles": np.array(tiles, np.int64).reshape(-1, 2),
        "tile_side": 10,
        "scores": np.array(scores, np.float32),
        "model": "wsi/mhim_v1/0123456789ab",
    }
    return SlideResult(**fields | changes)
