"""Slides through OpenSlide."""

from collections.abc import Mapping, Sequence
from ctypes import POINTER, c_uint32
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import ModuleType

import cv2
import numpy as np

from vision_core.errors import InputError
from vision_core.optional import require
from vision_core.slides.reading.source import WHITE, Level, Pixels, tile_error

_OPAQUE = 255
_WHY = "it reads slides"


def detect_vendor(path: Path) -> str | None:
    """Return OpenSlide's name of the format; None where it reads no such file."""
    vendor: str | None = require("openslide.lowlevel", why=_WHY).detect_vendor(path)
    return vendor


@dataclass(frozen=True, kw_only=True, eq=False)
class Metadata:
    """What OpenSlide says of a slide.

    Attributes:
        levels: All levels, finest first.
        properties: By name.
        handle: The open slide.
    """

    levels: tuple[Level, ...]
    properties: Mapping[str, str]
    handle: object


def read_metadata(path: Path) -> Metadata:
    """Open a slide and read its levels and properties.

    Raises:
        InputError: The file is damaged or of an unsupported kind.
    """
    library = require("openslide.lowlevel", why=_WHY)
    handle = _open(library, path)
    sizes = [library.get_level_dimensions(handle, number) for number in range(library.get_level_count(handle))]
    levels = [
        Level(width=width, height=height, downsample=library.get_level_downsample(handle, number))
        for number, (width, height) in enumerate(sizes)
    ]
    names = library.get_property_names(handle)
    properties = {name: library.get_property_value(handle, name) for name in names}
    return Metadata(levels=tuple(levels), properties=properties, handle=handle)


class OpenSlideReader:
    """Reader through OpenSlide.

    Each thread that reads has a handle of its own. After an error OpenSlide refuses further reads through the same
    handle, so it is dropped. The first one is opened with the first region.

    Args:
        path: The file.
        levels: The levels that are read.
        numbers: Their numbers in OpenSlide.
        handle: The slide, if it is open already.
    """

    def __init__(
        self, path: Path, levels: Sequence[Level], numbers: Sequence[int], handle: object | None = None
    ) -> None:
        self._path, self._numbers = path, tuple(numbers)
        self.levels = tuple(levels)
        self._library = require("openslide.lowlevel", why=_WHY)
        self._lock = Lock()
        self._idle_handles = [] if handle is None else [handle]
        self._is_closed = False

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Pixels:
        """Read a region, as ``Source.read`` does."""
        buffer = np.empty((size[1], size[0], 4), np.uint8)
        handle = self._acquire_handle()
        pointer, number = buffer.ctypes.data_as(POINTER(c_uint32)), self._numbers[level]
        try:
            self._library._read_region(handle, pointer, *corner, number, *size)
        except self._library.OpenSlideError as error:
            self._path.stat()  # raises if the disk or share is gone, which is no damaged tile
            raise tile_error(self._path, level, corner, str(error)) from error
        self._release_handle(handle)
        return _composite_on_white(buffer)

    def close(self) -> None:
        """Close all handles; those in use are closed after their read."""
        with self._lock:
            self._is_closed = True
            self._idle_handles.clear()

    def _acquire_handle(self) -> object:
        with self._lock:
            if self._is_closed:
                raise ValueError(f"'{self._path}' is closed")
            if self._idle_handles:
                return self._idle_handles.pop()
        return _open(self._library, self._path)

    def _release_handle(self, handle: object) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle_handles.append(handle)


def _open(library: ModuleType, path: Path) -> object:
    try:
        return library.open(path)
    except library.OpenSlideError as error:
        path.stat()
        raise InputError(
            f"'{path}' is damaged, or of a kind that is not supported: {error}. Copy or download it again, "
            "or convert it to a tiled TIFF."
        ) from error


def _composite_on_white(buffer: Pixels) -> Pixels:
    """Composite premultiplied BGRA over white, as RGB."""
    pixels = np.asarray(cv2.cvtColor(buffer, cv2.COLOR_BGRA2RGB), np.uint8)
    alpha = buffer[..., 3]
    if alpha.min() < _OPAQUE:
        pixels += np.minimum((WHITE - alpha)[..., None], WHITE - pixels)
    return pixels
