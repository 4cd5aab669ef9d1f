"""Whole slides: opened with every refusal named, read by level and place from any thread."""

import os
from collections.abc import Sequence
from ctypes import POINTER, c_uint32
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.optional import require
from vision_core.slides.resolution import find_resolution
from vision_core.slides.settings import ReadSettings

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".bif", ".svslide", ".dcm", ".czi"}
)
Pixels = NDArray[np.uint8]

_WHITE = 255
_OPAQUE = 255
_START_BYTES = 4096


class TileError(InputError):
    """A place of a slide cannot be read; other places may be."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of a pyramid.

    Attributes:
        width: Pixels.
        height: Pixels.
        downsample: Pixels of level 0 to one of this level, the mean of both directions.
    """

    width: int
    height: int
    downsample: float


class Slide:
    """An open slide; threads may read at the same time.

    Attributes:
        path: The file.
        levels: Resolutions, finest first.
        mpp: Microns per pixel at level 0, the mean of x and y.
        mpp_source: Who says so.
        objective: Its power, stated or derived from ``mpp``.
        notes: What to be wary of, as sentences.
        is_fast: Whether tiles are decoded directly, after giving OpenSlide's pixels on opening.
    """

    def __init__(self, path: Path, settings: ReadSettings, mpp: float | None = None) -> None:
        self.path = path
        self._handles = _Handles(path)
        self.levels, properties = self._handles.describe()
        found = find_resolution(str(path), properties, {"the list of slides": mpp, "read.mpp": settings.mpp})
        self.mpp, self.mpp_source = found.mpp, found.source
        self.objective, self.notes = found.objective, found.notes
        self.is_fast = False

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` of level 0."""
        return self.levels[0].height, self.levels[0].width

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """The pixels of a region; white where the slide holds nothing.

        Args:
            level: Index in ``levels``.
            x: Left edge in pixels of level 0; may lie outside.
            y: Upper edge, likewise.
            width: In pixels of ``level``.
            height: Likewise.

        Returns:
            ``(height, width, 3)`` uint8, RGB.

        Raises:
            TileError: The file is damaged there. Later reads elsewhere are not affected.
            OSError: The disk or share failed; trying again may help.
        """
        if not 0 <= level < len(self.levels) or width < 1 or height < 1:
            raise ValueError(f"level {level}, {width} x {height} pixels: no region of '{self.path}'")
        return self._handles.read(level, (x, y), (width, height))

    def close(self) -> None:
        """Close the file; a closed slide cannot be read."""
        self._handles.close()

    def __enter__(self) -> "Slide":
        """The slide itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_slide(path: Path, read: ReadSettings | None = None, mpp: float | None = None) -> Slide:
    """Open a slide.

    Args:
        path: The file.
        read: How to read it.
        mpp: Microns per pixel stated for this slide, for a file that does not say; wins over ``read.mpp``.

    Raises:
        InputError: The file is missing, empty, damaged or no slide; or nobody says how many microns a pixel covers.
        MissingDependencyError: OpenSlide is not installed.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except (FileNotFoundError, IsADirectoryError, PermissionError, NotADirectoryError) as error:
        raise InputError(f"'{path}' cannot be opened: {(error.strerror or 'no reason given').lower()}.") from error
    if not start:
        raise InputError(f"'{path}' is empty (0 bytes). Copy or download it again.")
    return Slide(path, read or ReadSettings(), mpp)


def list_slides(folder: Path) -> list[Path]:
    """The slides of ``folder`` and the folders below, sorted; hidden ones are left out.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder. Give a folder of slides.")
    found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SLIDE_SUFFIXES and path.is_file()]
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


class _Handles:
    """OpenSlide's handles of a file: one a reader at a time, since one error spoils a handle for good."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._openslide = require("openslide.lowlevel", why="it reads slides")
        self._turn = Lock()
        self._free: list[object] = []
        self._is_closed = False

    def describe(self) -> tuple[tuple[Level, ...], dict[str, str]]:
        """Levels and properties."""
        library, handle = self._openslide, self._take()
        try:
            sizes = [library.get_level_dimensions(handle, number) for number in range(library.get_level_count(handle))]
            levels = [
                Level(width=width, height=height, downsample=library.get_level_downsample(handle, number))
                for number, (width, height) in enumerate(sizes)
            ]
            names = library.get_property_names(handle)
            properties = {name: library.get_property_value(handle, name) for name in names}
        except library.OpenSlideError as error:
            raise InputError(f"'{self._path}' cannot be read: {error}. Copy or download it again.") from error
        self._give(handle)
        return tuple(levels), properties

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Pixels:
        """As ``Slide.read``."""
        buffer = np.empty((size[1], size[0], 4), np.uint8)
        handle = self._take()
        try:
            pointer = buffer.ctypes.data_as(POINTER(c_uint32))
            self._openslide._read_region(handle, pointer, *corner, level, *size)
        except self._openslide.OpenSlideError as error:
            os.stat(self._path)  # noqa: PTH116  a share that is gone is no damaged tile
            raise tile_error(self._path, level, corner, str(error)) from error
        self._give(handle)
        return _over_white(buffer)

    def close(self) -> None:
        with self._turn:
            self._is_closed = True
            self._free.clear()  # a handle closes with its last reference

    def _take(self) -> object:
        with self._turn:
            if self._is_closed:
                raise ValueError(f"'{self._path}' is closed")
            if self._free:
                return self._free.pop()
        try:
            return self._openslide.open(self._path)
        except self._openslide.OpenSlideError as error:
            raise InputError(f"'{self._path}' cannot be opened as a slide: {error}.") from error

    def _give(self, handle: object) -> None:
        with self._turn:
            if not self._is_closed:
                self._free.append(handle)


def tile_error(path: Path, level: int, corner: Sequence[int], reason: str) -> TileError:
    """The error of a place, named by pixels of level 0."""
    return TileError(
        f"'{path}': level {level} cannot be read at x {corner[0]}, y {corner[1]}: {reason.rstrip('.')}. "
        "Copy or download the slide again, or allow unreadable tiles with read.max_bad_tiles."
    )


def _over_white(buffer: Pixels) -> Pixels:
    """Opaque RGB of premultiplied BGRA."""
    pixels = np.asarray(cv2.cvtColor(buffer, cv2.COLOR_BGRA2RGB), np.uint8)
    alpha = buffer[..., 3]
    if alpha.min() < _OPAQUE:
        pixels += (_WHITE - alpha)[..., None]
    return pixels
