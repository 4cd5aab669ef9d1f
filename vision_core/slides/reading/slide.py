"""Whole slides, read by level and position from any thread."""

import os
from pathlib import Path
from types import TracebackType

from vision_core.errors import InputError
from vision_core.images.reading import read_image
from vision_core.sandbox import Limits, Sandbox
from vision_core.slides.reading.fast_jpeg import FastJpeg
from vision_core.slides.reading.gate.directories import Directory, tile_grid
from vision_core.slides.reading.openslide_reader import OpenSlideReader
from vision_core.slides.reading.resolution import Resolution
from vision_core.slides.reading.source import Level, Pixels, Source, crop_on_white
from vision_core.slides.reading.source import TileError as TileError  # so that users of slides import this module alone
from vision_core.slides.reading.tiff_segments import TiffSegments
from vision_core.slides.settings import ReadSettings

_INSPECTION = "vision_core.slides.reading.gate.inspection:inspect_slide"
_LIMITS = Limits(seconds=120.0)
_sandboxes: dict[int, Sandbox] = {}  # by process, since a forked one must not share the line of its parent


class Slide:
    """An open slide; several threads may read it at the same time.

    Attributes:
        path: The file.
        levels: Resolutions, finest first.
        mpp: Microns per pixel at level 0, the mean of x and y.
        mpp_source: Where ``mpp`` was found.
        objective: Power of the objective, stated or derived from ``mpp``.
        notes: Warnings, one sentence each.
        is_fast: Tiles of level 0 are decoded directly, without OpenSlide; on opening, samples gave the same pixels.
    """

    def __init__(self, path: Path, source: Source, resolution: Resolution, fast: FastJpeg | None = None) -> None:
        self.path = path
        self.levels = source.levels
        self.mpp, self.mpp_source = resolution.mpp, resolution.source
        self.objective, self.notes = resolution.objective, resolution.notes
        self._source, self._fast = source, fast
        self.is_fast = fast is not None and fast.has(0)

    @property
    def size(self) -> tuple[int, int]:
        """Return ``(height, width)`` of level 0."""
        return self.levels[0].height, self.levels[0].width

    def read(  # noqa: PLR0913 (a region has four numbers)
        self, level: int, x: int, y: int, width: int, height: int, *, sequential: bool = False
    ) -> Pixels:
        """Read a region; white where the slide holds no pixels.

        Args:
            level: Index in ``levels``.
            x: Left edge in pixels of level 0; may lie outside the slide.
            y: Upper edge in pixels of level 0; may lie outside the slide.
            width: In pixels of ``level``.
            height: In pixels of ``level``.
            sequential: The regions that are read do not overlap and come row by row, so decoded tiles that end in this
                one are not needed again.

        Returns:
            ``(height, width, 3)`` uint8, RGB.

        Raises:
            TileError: The file is damaged there; other regions may be readable.
            OSError: The disk or share failed; trying again may help.
        """
        if not 0 <= level < len(self.levels) or width < 1 or height < 1:
            raise ValueError(f"level {level}, {width} x {height} pixels: no region of '{self.path}'")
        pixels = self._fast.read(level, (x, y), (width, height), sequential=sequential) if self._fast else None
        return self._source.read(level, (x, y), (width, height)) if pixels is None else pixels

    def close(self) -> None:
        """Close the file; the slide can no longer be read."""
        if self._fast:
            self._fast.close()
        self._source.close()

    def __enter__(self) -> "Slide":
        """Return the slide itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_slide(path: Path, read: ReadSettings | None = None, mpp: float | None = None) -> Slide:
    """Open a slide.

    The file is inspected in a child process first, which is kept for the next slide. A plain image counts as a slide
    only if microns per pixel are stated. Label and macro image are never opened.

    Args:
        path: The file.
        read: How to read it.
        mpp: Microns per pixel of this slide, in place of what the file says; takes precedence over ``read.mpp``.

    Raises:
        InputError: The file is missing, empty, damaged or no slide of 8-bit colours, OpenSlide crashes on it, or
            microns per pixel are not known.
        MissingDependencyError: OpenSlide is not installed.
        OSError: The disk or share failed; trying again may help.
    """
    settings = read or ReadSettings()
    stated = {"the list of slides": mpp, "read.mpp": settings.mpp}
    answer = _sandbox().run(_INSPECTION, path, is_fast=settings.fast, stated=stated)
    found = answer.value
    resolution = Resolution(**{**found["resolution"], "notes": tuple(found["notes"])})
    if found["reader"] == "image":
        return Slide(path, _PlainImage(path), resolution)
    levels = [Level(**level) for level in found["levels"]]
    directories = {
        int(number): Directory.from_json(each, answer.arrays[f"offsets{number}"], answer.arrays[f"counts{number}"])
        for number, each in found["directories"].items()
    }
    if found["reader"] == "segments":
        return Slide(path, TiffSegments(path, list(directories.values()), levels), resolution)
    grids = [tile_grid(directories[number]) if number in directories else None for number in range(len(levels))]
    fast = FastJpeg(path, levels, grids) if directories else None
    return Slide(path, OpenSlideReader(path, levels, found["numbers"]), resolution, fast)


def _sandbox() -> Sandbox:
    """Return the child process that inspects the slides of this process."""
    return _sandboxes.setdefault(os.getpid(), Sandbox(_LIMITS))


class _PlainImage:
    """Reader of a plain image in memory, a slide of one level."""

    def __init__(self, path: Path) -> None:
        self._pixels = read_image(path)
        if (self._pixels == self._pixels[..., :1]).all():
            raise InputError(f"'{path}' is grey throughout: the slide has no colour. Use the scanner's colour image.")
        height, width = self._pixels.shape[:2]
        self.levels: tuple[Level, ...] = (Level(width=width, height=height, downsample=1.0),)

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Pixels:
        """Read a region, as ``Source.read`` does."""
        return crop_on_white(self._pixels, corner, size)

    def close(self) -> None:
        """Do nothing, since no file is open."""
