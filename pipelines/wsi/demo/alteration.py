"""Synthetic alteration of nuclei in foci: larger, denser, of coarser chromatin, with local colours preserved.

Sham foci get the same processing: nuclei are cut out and pasted back, some exchanged for others of the same pool, none
enlarged, roughened or added. Traces of processing therefore do not distinguish altered from sham foci.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.wsi.demo.nuclei import Nucleus, enlarged, find_nuclei, put, remove
from pipelines.wsi.demo.pictures import Floats, Picture, blurred, to_picture

MARGIN_PX = 48  # margin for nuclei that extend beyond the disc
_TILE_AREA_PX = 128**2
_TURN_IN_PLACE, _TURN_ELSEWHERE = 10.0, 180.0
_FREE_PX = 8
_FINEST_PX, _COARSEST_PX = 1.2, 3.0
_SURROUNDINGS_PX = 24.0
_LARGEST_GAIN = 1.6
_LEVELS = 256.0


@dataclass(frozen=True, kw_only=True)
class Change:
    """Parameters of the alteration of a focus.

    Attributes:
        scales: Least and largest enlargement.
        grain: Spread of the factor on the optical density of chromatin.
        exchanged: Share of nuclei replaced by others of the pool, at other positions in the focus.
        added: Additional nuclei of the pool per 128 x 128 pixels.
    """

    scales: tuple[float, float]
    grain: float
    exchanged: float
    added: float


@dataclass(frozen=True, kw_only=True)
class Focus:
    """Disc on a slide: centre and radius in pixels, at least ``reach`` from the slide's edges."""

    x: int
    y: int
    radius: int

    @property
    def reach(self) -> int:
        """Half the side of the processed square."""
        return self.radius + MARGIN_PX

    def window(self, slide: Picture) -> Picture:
        """Return a view of the square around the focus ``(2 reach, 2 reach, 3)``."""
        return slide[self.y - self.reach : self.y + self.reach, self.x - self.reach : self.x + self.reach]

    def disc(self) -> NDArray[np.bool_]:
        """Return the mask of the disc in its window."""
        away = np.arange(-self.reach, self.reach) + 0.5
        return np.asarray(np.hypot(away[:, None], away) <= self.radius)


def change_focus(
    slide: Picture, focus: Focus, change: Change, strangers: Sequence[Nucleus], generator: np.random.Generator
) -> None:
    """Alter the nuclei of one focus in place; ``strangers`` are nuclei of the pool."""
    window, disc = focus.window(slide), focus.disc()
    own = [nucleus for nucleus in find_nuclei(window) if _is_inside(nucleus, disc)]
    num_exchanged = round(change.exchanged * len(own))
    num_strange = num_exchanged + round(change.added * disc.sum() / _TILE_AREA_PX)
    kept = [own[number] for number in generator.permutation(len(own))[num_exchanged:]]
    changed = remove(window, own)
    for nucleus in kept:
        put(changed, *_changed(nucleus, change, _TURN_IN_PLACE, generator), nucleus.centre)
    for centre in _free_places(disc, kept, num_strange, generator):
        stranger = strangers[int(generator.integers(len(strangers)))]
        put(changed, *_changed(stranger, change, _TURN_ELSEWHERE, generator), centre)
    window[:] = match_colours(changed, window)


def match_colours(picture: Picture, wanted: Picture) -> Picture:
    """Match the local mean and spread of each channel to those of ``wanted``."""
    mean, spread = _moments(picture)
    wanted_mean, wanted_spread = _moments(wanted)
    gain = np.clip(wanted_spread / spread, 1 / _LARGEST_GAIN, _LARGEST_GAIN)
    return to_picture((picture - mean) * gain + wanted_mean)


def roughen(pixels: Floats, grain: float, generator: np.random.Generator) -> Floats:
    """Coarsen chromatin: multiply optical density by clumps of mean 1 and spread ``grain``."""
    noise = generator.standard_normal(pixels.shape[:2], dtype=np.float32)
    clumps = blurred(noise, _FINEST_PX) - blurred(noise, _COARSEST_PX)
    factor = 1 + grain * (clumps - clumps.mean()) / clumps.std()
    return np.asarray(_LEVELS * ((pixels + 1) / _LEVELS) ** factor[..., None] - 1)


def _changed(nucleus: Nucleus, change: Change, turn: float, generator: np.random.Generator) -> tuple[Floats, Floats]:
    pixels, cover = enlarged(nucleus, generator.uniform(*change.scales), generator.uniform(-turn, turn))
    return roughen(pixels, change.grain, generator), cover


def _free_places(
    disc: NDArray[np.bool_], taken: Sequence[Nucleus], count: int, generator: np.random.Generator
) -> list[tuple[float, float]]:
    """Find free positions ``(x, y)`` in the disc, apart from each other; fewer without room."""
    free = disc.astype(np.uint8)
    for nucleus in taken:
        _occupy(free, nucleus.centre)
    places: list[tuple[float, float]] = []
    for row, column in generator.permutation(np.argwhere(free)).tolist():
        if len(places) == count:
            break
        if free[row, column]:
            places.append((column, row))
            _occupy(free, places[-1])
    return places


def _occupy(free: NDArray[np.uint8], centre: tuple[float, float]) -> None:
    x, y = centre
    cv2.circle(free, (round(x), round(y)), _FREE_PX, 0, -1)


def _is_inside(nucleus: Nucleus, disc: NDArray[np.bool_]) -> bool:
    x, y = nucleus.centre
    return bool(disc[round(y), round(x)])


def _moments(picture: Picture) -> tuple[Floats, Floats]:
    values = picture.astype(np.float32)
    mean = blurred(values, _SURROUNDINGS_PX)
    variance = blurred(values**2, _SURROUNDINGS_PX) - mean**2
    return mean, np.sqrt(np.maximum(variance, 1))
