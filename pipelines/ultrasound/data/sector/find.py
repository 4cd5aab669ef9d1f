"""Find the sector of frames: the dense part of what moves. Text beside it is thin, and most of it stands still.

Speckle moves in all of the sector; letters, scales and traces move in few pixels of their surroundings, if at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.frames import Grey, Mask

UNKNOWN = "unknown machine"
MOST_HIDDEN = 0.05  # of what moves: a mask that hides more does not fit
_MOVES, _BRIGHT, _ROUGH = 10 / 255, 16 / 255, 5 / 255  # of white: beyond the noise of JPEG and videos
_DENSE = 0.5  # share of the surroundings; of text it is a fifth to two fifths
_AROUND = 40  # times the surroundings go into the longer side
_LEAST, _SOLID = 0.05, 0.05  # least sector, of the frame; largest other picture, of the sector
_THICK = 10  # times the least side of a picture goes into the longer side
_SHOWN = 8
_FIRST = 64  # frames of a cine among which some are taken: a video would be decoded to its end for the last


@dataclass(frozen=True, kw_only=True)
class Sector:
    """Sector of the frames of one machine and size.

    Attributes:
        machine: Manufacturer and model; empty where it is not known.
        size: Height and width of a frame.
        corners: Columns and rows of a convex outline.
    """

    machine: str
    size: tuple[int, int]
    corners: tuple[tuple[int, int], ...]

    @property
    def inside(self) -> Mask:
        """Return its pixels, ``(H, W)``."""
        return _drawn(self.size, self.corners)

    @property
    def outside_share(self) -> float:
        """Return the share of a frame that lies outside."""
        return float(1 - self.inside.mean())

    def shown(self, image: Grey) -> Grey:
        """Return a frame with black outside; one of another size as it is."""
        return np.where(self.inside, image, np.zeros((), image.dtype)) if image.shape == self.size else image

    def to_record(self) -> dict[str, Any]:
        """Convert to what JSON holds."""
        return {"machine": self.machine, "size": list(self.size), "corners": [list(each) for each in self.corners]}

    @classmethod
    def from_record(cls, record: Any) -> "Sector":  # noqa: ANN401 (JSON)
        """Read a record.

        Raises:
            ValueError: It is none.
        """
        try:
            height, width = map(int, record["size"])
            corners = tuple((int(column), int(row)) for column, row in record["corners"])
            if min(height, width) < 1 or len(corners) < 3:
                raise ValueError("size or corners")
            return cls(machine=str(record["machine"]), size=(height, width), corners=corners)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no sector: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What some frames of one size show.

    Attributes:
        moving: ``(H, W)`` whether a pixel differs between frames of a cine.
        bright: ``(H, W)`` whether it is ever not black.
        rough: ``(H, W)`` whether it is bright and differs from its neighbours, as pictures do and buttons do not.
        has_several: Whether there were several frames of a cine.
    """

    moving: Mask
    bright: Mask
    rough: Mask
    has_several: bool

    def joined(self, other: "Motion") -> "Motion":
        """Join what two cines of one size show."""
        return Motion(
            moving=self.moving | other.moving,
            bright=self.bright | other.bright,
            rough=self.rough | other.rough,
            has_several=self.has_several or other.has_several,
        )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether frames are masked.

    Attributes:
        sector: The sector to keep; None: nothing is masked.
        reason: Why not, the rest of a sentence; empty where there is nothing to mask either.
    """

    sector: Sector | None = None
    reason: str = ""


def sampled(count: int, most: int = _SHOWN) -> list[int]:
    """Choose some of the first frames of a cine, evenly."""
    among = min(count, _FIRST)
    return sorted({each * among // most for each in range(most)})


def motion_of(images: Sequence[Grey], white: float) -> Motion:
    """Compare frames ``(H, W)`` of one cine and size."""
    lowest, highest = images[0].astype(np.float32), images[0].astype(np.float32)
    for image in images[1:]:
        lowest, highest = np.minimum(lowest, image), np.maximum(highest, image)
    bright = np.asarray(highest > _BRIGHT * white)
    first, around = images[0].astype(np.float32), np.ones((3, 3), np.uint8)
    return Motion(
        moving=np.asarray(highest - lowest > _MOVES * white),
        bright=bright,
        rough=bright & (cv2.dilate(first, around) - cv2.erode(first, around) > _ROUGH * white),
        has_several=len(images) > 1,
    )


def decide(motion: Motion, machine: str, known: Sector | None = None) -> Decision:
    """Decide what of a cine is masked; a known sector of its machine is taken where it fits.

    Nothing is masked where the sector is not certain: too little moves, what moves would be hidden, or another picture
    lies beside it.
    """
    if known is not None and not _misfit(motion, known.inside):
        return Decision(sector=known) if (motion.bright & ~known.inside).any() else Decision()
    if not motion.has_several:
        return _of_single(motion)
    core = _largest(_dense(motion.moving))
    if core.mean() < _LEAST:
        return Decision(reason=f"its frames move in '{core.mean():.1%}' of their pixels, too few to find the sector")
    sector = Sector(machine=machine, size=core.shape, corners=_outline(core))
    if not (motion.bright & ~sector.inside).any():
        return Decision()
    if reason := _misfit(motion, sector.inside):
        return Decision(reason=reason)
    return Decision(sector=sector)


def misfit(motion: Motion, sector: Sector) -> str:
    """Tell why a sector does not fit a cine; empty where it does."""
    return _misfit(motion, sector.inside)


def told(sector: Sector) -> str:
    """Tell in a sentence, without its end, what is masked."""
    height, width = sector.size
    return (
        f"Outside the sector of '{sector.machine or UNKNOWN}' at {height} x {width}, "
        f"{sector.outside_share:.0%} of a frame, all is black for the networks (data.outside=keep leaves it)"
    )


def _of_single(motion: Motion) -> Decision:
    """Decide for a single frame: nothing is masked, and it is told where something lies beside the largest picture."""
    core = _largest(_dense(motion.rough))
    inside = _drawn(core.shape, _outline(core)) if core.any() else core
    beside = (motion.bright & ~inside).any()
    return Decision(reason="a single frame does not tell text from the sector" if beside else "")


def _misfit(motion: Motion, inside: Mask) -> str:
    hidden = float((motion.moving & ~inside).sum() / max(int(motion.moving.sum()), 1))
    if hidden > MOST_HIDDEN:
        return f"the sector found would hide '{hidden:.1%}' of what moves, {MOST_HIDDEN:.0%} at most are text or traces"
    thick = np.ones((max(inside.shape) // _THICK,) * 2, np.uint8)  # bars of buttons and of greys are thinner
    other = _largest(cv2.morphologyEx(_dense(motion.rough & ~inside).astype(np.uint8), cv2.MORPH_OPEN, thick) > 0)
    if other.sum() > _SOLID * inside.sum():
        return f"another picture lies beside the sector, of '{other.mean():.1%}' of the frame"
    return ""


def _dense(pixels: Mask) -> Mask:
    side = _side(pixels.shape)
    share = cv2.boxFilter(pixels.astype(np.float32), -1, (side, side), borderType=cv2.BORDER_REFLECT)
    return np.asarray(share >= _DENSE)


def _side(size: Iterable[int]) -> int:
    return max(round(max(size) / _AROUND), 3) // 2 * 2 + 1


def _largest(pixels: Mask) -> Mask:
    count, labels, facts, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=4)
    if count < 2:
        return np.zeros_like(pixels)
    return np.asarray(labels == 1 + int(np.argmax(facts[1:, cv2.CC_STAT_AREA])))


def _outline(core: Mask) -> tuple[tuple[int, int], ...]:
    """Return the corners of the convex outline, which is wider than the dense part by its surroundings."""
    side = _side(core.shape)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * side + 1, 2 * side + 1))
    wide = cv2.dilate(core.astype(np.uint8), kernel)
    points = np.argwhere(wide)[:, ::-1].astype(np.int32)
    return tuple((int(column), int(row)) for column, row in cv2.convexHull(points)[:, 0])


@lru_cache(16)
def _drawn(size: tuple[int, int], corners: tuple[tuple[int, int], ...]) -> NDArray[np.bool_]:
    drawn = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(drawn, np.array(corners, np.int32), 1)
    found = drawn.astype(bool)
    found.setflags(write=False)
    return found
