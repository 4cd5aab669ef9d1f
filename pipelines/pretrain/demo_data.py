"""The demo's images: made textures of four kinds, so that the demo runs anywhere, offline, in minutes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision_core.files import write_atomic
from vision_core.images import write_png
from vision_core.randomness import key

Grey = NDArray[np.float64]
SIZE_PX = 96
PARTS = {"train": 32, "val": 8, "test": 16}  # images of each class
_ATTRIBUTION = (
    "Made by pipelines/pretrain/demo_data.py: pictures of stripes, rings, discs and checks with noise. No image of a "
    "patient or of anything else.\n"
)


def make_demo_data(folder: Path, size_px: int = SIZE_PX) -> str:
    """Write ``<part>/<kind>/<number>.png``; returns a sentence on what it is."""
    for part, count in PARTS.items():
        for kind, draw in _KINDS.items():
            for number in range(count):
                generator = np.random.default_rng(key("demo", part, kind, number))
                write_png(folder / part / kind / f"{number:03d}.png", _picture(draw, size_px, generator))
    write_atomic(folder / "ATTRIBUTION.txt", _ATTRIBUTION)
    return "Demo data: made pictures of stripes, rings, discs and checks; they show how it runs, not how well."


def _picture(draw: "Draw", size_px: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:size_px, :size_px] / size_px - generator.uniform(0.3, 0.7, (2, 1, 1))
    angle = generator.uniform(0, np.pi)
    across = rows * np.cos(angle) + columns * np.sin(angle)
    along = columns * np.cos(angle) - rows * np.sin(angle)
    pattern = draw(across, along, generator.uniform(20, 40))
    noisy = 0.5 + 0.15 * pattern + 0.15 * generator.standard_normal(pattern.shape)
    grey = np.clip(255 * noisy, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _stripes(across: Grey, _along: Grey, frequency: float) -> Grey:
    return np.sin(across * frequency)


def _rings(across: Grey, along: Grey, frequency: float) -> Grey:
    return np.sin(np.hypot(across, along) * frequency)


def _discs(across: Grey, along: Grey, frequency: float) -> Grey:
    return np.where(np.hypot(across, along) < 8 / frequency, 1.0, -0.5)


def _checks(across: Grey, along: Grey, frequency: float) -> Grey:
    checks: Grey = np.sign(np.sin(across * frequency) * np.sin(along * frequency))
    return checks


Draw = Callable[[Grey, Grey, float], Grey]
_KINDS: dict[str, Draw] = {"checks": _checks, "discs": _discs, "rings": _rings, "stripes": _stripes}
