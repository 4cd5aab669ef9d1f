"""Whole slides, read by level and position from any thread."""

import logging
from collections.abc import Mapping
from ctypes import POINTER, c_uint32
from dataclasses import replace
from pathlib import Path
from threading import Lock
from types import TracebackType

import cv2
import numpy as np

from vision_core.errors import InputError
from vision_core.images.reading import read_image
from vision_core.optional import require
from vision_core.slides.reading.fast_jpeg import FastJpeg
from vision_core.slides.reading.resolution import Resolution, find_resolution
from vision_core.slides.reading.source import WHITE, Level, Pixels, Source, crop_on_white, tile_error
from vision_core.slides.reading.source import TileError as TileError  # so that users of slides import this module alone
from vision_core.slides.reading.tiff_strips import StripTiff
from vision_core.slides.settings import ReadSettings

_REGULAR_GRID_VENDORS = frozenset({"aperio", "generic-tiff"})  # other scanners' tiles overlap or are shifted
_OPAQUE = 255
_SIGNATURE_BYTES = 4096
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IMAGE_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP"}
_HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<?xml")
_LFS_START = b"version https://git-lfs"
_STRIPS_NOTE = "The image is stored in strips instead of tiles, so reading it is slow."
_WHY = "it reads slides"
_LOG = logging.getLogger("domainsight")


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

    def __init__(self, path: Path, source: Source, resolution: Resolution, *, fast: bool) -> None:
        self.path = path
        self.levels = source.levels
        self.mpp, self.mpp_source = resolution.mpp, resolution.source
        self.objective, self.notes = resolution.objective, resolution.notes
        self._source = source
        self._fast = FastJpeg(path, source) if fast else None
        self.is_fast = self._fast is not None and self._fast.has(0)

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

    A plain image counts as a slide only if microns per pixel are stated. Label and macro image are never opened.

    Args:
        path: The file.
        read: How to read it.
        mpp: Microns per pixel of this slide, for a file without them; takes precedence over ``read.mpp``.

    Raises:
        InputError: The file is missing, empty, damaged or no slide, or microns per pixel are not known.
        MissingDependencyError: OpenSlide is not installed.
        OSError: The disk or share failed; trying again may help.
    """
    settings = read or ReadSettings()
    stated = {"the list of slides": mpp, "read.mpp": settings.mpp}
    source, properties, notes = _open_source(path, is_stated=any(each is not None for each in stated.values()))
    try:
        found = find_resolution(str(path), properties, stated)
        is_fast = settings.fast and properties.get("openslide.vendor") in _REGULAR_GRID_VENDORS
        return Slide(path, source, replace(found, notes=(*found.notes, *notes)), fast=is_fast)
    except BaseException:
        source.close()
        raise


class _OpenSlide:
    """Reader through OpenSlide.

    Each thread that reads has a handle of its own. After an error OpenSlide refuses further reads through the same
    handle, so it is dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._library = require("openslide.lowlevel", why=_WHY)
        self._lock = Lock()
        self._idle_handles: list[object] = []
        self._is_closed = False
        self.levels, self.properties = self._read_metadata()

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Pixels:
        """Read a region, as ``Source.read`` does."""
        buffer = np.empty((size[1], size[0], 4), np.uint8)
        handle = self._acquire_handle()
        try:
            self._library._read_region(handle, buffer.ctypes.data_as(POINTER(c_uint32)), *corner, level, *size)
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

    def _read_metadata(self) -> tuple[tuple[Level, ...], Mapping[str, str]]:
        library, handle = self._library, self._acquire_handle()
        sizes = [library.get_level_dimensions(handle, number) for number in range(library.get_level_count(handle))]
        levels = [
            Level(width=width, height=height, downsample=library.get_level_downsample(handle, number))
            for number, (width, height) in enumerate(sizes)
        ]
        names = library.get_property_names(handle)
        properties = {name: library.get_property_value(handle, name) for name in names}
        self._release_handle(handle)
        return tuple(levels), properties

    def _acquire_handle(self) -> object:
        with self._lock:
            if self._is_closed:
                raise ValueError(f"'{self._path}' is closed")
            if self._idle_handles:
                return self._idle_handles.pop()
        try:
            return self._library.open(self._path)
        except self._library.OpenSlideError as error:
            self._path.stat()
            raise InputError(
                f"'{self._path}' is damaged, or of a kind that is not supported: {error}. Copy or download it again, "
                "or convert it to a tiled TIFF."
            ) from error

    def _release_handle(self, handle: object) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle_handles.append(handle)


class _PlainImage:
    """Reader of a plain image in memory, a slide of one level."""

    def __init__(self, path: Path) -> None:
        self._pixels = read_image(path)
        height, width = self._pixels.shape[:2]
        self.levels: tuple[Level, ...] = (Level(width=width, height=height, downsample=1.0),)

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Pixels:
        """Read a region, as ``Source.read`` does."""
        return crop_on_white(self._pixels, corner, size)

    def close(self) -> None:
        """Do nothing, since no file is open."""


def _read_signature(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(_SIGNATURE_BYTES)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"'{path}' cannot be opened: {(error.strerror or 'no reason given').lower()}.") from error
    if not start:
        raise InputError(f"'{path}' is empty (0 bytes). Copy or download it again.")
    return start


def _open_source(path: Path, *, is_stated: bool) -> tuple[Source, Mapping[str, str], tuple[str, ...]]:
    """Choose the reader of a file; return it with properties and warnings."""
    start = _read_signature(path)
    if require("openslide.lowlevel", why=_WHY).detect_vendor(path) is not None:
        slide = _OpenSlide(path)
        return slide, slide.properties, ()
    if start.startswith(_TIFF_SIGNATURES):
        strips = StripTiff(path)
        return strips, strips.properties, (_STRIPS_NOTE,)
    kind = next((kind for mark, kind in _IMAGE_SIGNATURES.items() if start.startswith(mark)), None)
    if kind is None:
        raise InputError(f"'{path}' is of no slide format known here: {_diagnose(path, start)}.")
    if not is_stated:
        raise InputError(
            f"'{path}' is a plain image ({kind}), not a slide, and does not give microns per pixel. To use it as a "
            "slide, give them in a column 'mpp' of the CSV of slides, or with read.mpp=0.5."
        )
    return _PlainImage(path), {}, ()


def _diagnose(path: Path, start: bytes) -> str:
    if not start.strip(b"\0"):
        return "it begins with zeros; copy or download it again"
    if start.lstrip().lower().startswith(_HTML_STARTS):
        return "it looks like HTML (a login page?); download it again"
    if start.startswith(_LFS_START):
        return "it is a Git LFS pointer; run 'git lfs pull'"
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        return f"its folder '{path.stem}' is not beside it; copy that too"
    return "convert it to a tiled TIFF, or download it again"


def _composite_on_white(buffer: Pixels) -> Pixels:
    """Composite premultiplied BGRA over white, as RGB."""
    pixels = np.asarray(cv2.cvtColor(buffer, cv2.COLOR_BGRA2RGB), np.uint8)
    alpha = buffer[..., 3]
    if alpha.min() < _OPAQUE:
        pixels += (WHITE - alpha)[..., None]
    return pixels
