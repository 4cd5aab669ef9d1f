"""TIFFs stored in strips, as slides of one level.

OpenSlide reads tiled TIFFs only. Here only the strips that a region needs are decoded. Each is passed to libtiff as a
TIFF of its own, so that every compression that libtiff knows is read.
"""

import logging
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.optional import require
from vision_core.slides.reading.source import WHITE, Level, Pixels, TileError, tile_error
from vision_core.slides.reading.tiff_directories import FileDescriptor, read_first_page
from vision_core.slides.reading.tile_cache import TileCache

_CACHE_BYTES = 192 * 2**20  # a row of 512-pixel tiles of an image 100,000 pixels wide
_MAX_STRIP_BYTES = 256 * 2**20
_PART_BYTES = 4 * 2**20
_COMPRESSION = 259
_UNCOMPRESSED, _DEFLATE = 1, frozenset({8, 32946})
_CONVERT_HINT = "Convert it: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg"
_RESOLUTION_UNITS = {2: "inch", 3: "centimeter"}
_SHORT, _LONG, _UNDEFINED = 3, 4, 7
logging.getLogger("pyvips").setLevel(logging.CRITICAL)  # its warnings repeat what our errors say
_STRUCT = {_SHORT: "H", _LONG: "I", _UNDEFINED: "B"}
_COPIED_TAGS = {  # those that the decoding of a strip depends on
    258: _SHORT,  # bits a sample
    _COMPRESSION: _SHORT,
    262: _SHORT,  # photometric interpretation
    266: _SHORT,  # fill order
    277: _SHORT,  # samples a pixel
    317: _SHORT,  # predictor
    320: _SHORT,  # colour map
    338: _SHORT,  # extra samples
    347: _UNDEFINED,  # JPEG tables
    530: _SHORT,  # subsampling of colours
}


@dataclass(frozen=True, kw_only=True, eq=False)
class _StripLayout:
    """Positions of the strips in the file, of ``rows`` rows each."""

    width: int
    height: int
    rows: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    tags: Mapping[int, tuple[int, ...]]

    def strip_rows(self, number: int) -> int:
        return min(self.rows, self.height - number * self.rows)


class StripTiff:
    """Reader of the first image of a TIFF in strips.

    Args:
        path: The file.

    Raises:
        InputError: The file cannot be read, has not 8 bits a channel, or its strips are too large to be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        page = read_first_page(path)
        if page is None or page.is_tiled:
            raise InputError(
                f"'{path}' begins as a TIFF, but its directories cannot be read: it is damaged or cut short. "
                "Copy or download it again."
            )
        self._layout = _read_layout(path, page)
        self.levels: tuple[Level, ...] = (Level(width=self._layout.width, height=self._layout.height, downsample=1.0),)
        self.properties = _resolution_properties(page)
        self._cache = TileCache(_CACHE_BYTES)
        self._file: FileDescriptor | None = FileDescriptor(path)
        self._vips = require("pyvips", why="it reads slides that are stored in strips")

    def read(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Pixels:
        """Read a region, as ``Source.read`` does."""
        file, layout = self._file, self._layout
        if file is None:
            raise ValueError(f"'{self._path}' is closed")
        region = np.full((size[1], size[0], 3), WHITE, np.uint8)
        (x, y), (width, height) = corner, size
        left, right = max(x, 0), min(x + width, layout.width)
        top, bottom = max(y, 0), min(y + height, layout.height)
        for number in range(top // layout.rows, -(-bottom // layout.rows)) if left < right and top < bottom else ():
            strip = self._cache.get(number, partial(self._decode, file, number))
            start = number * layout.rows
            low, high = max(top, start), min(bottom, start + layout.strip_rows(number))
            region[low - y : high - y, left - x : right - x] = strip[low - start : high - start, left:right]
        return region

    def close(self) -> None:
        """Close the file after the current reads."""
        self._file = None
        self._cache.clear()

    def _decode(self, file: FileDescriptor, number: int) -> Pixels:
        layout = self._layout
        count = int(layout.counts[number])
        data = os.pread(file.fd, count, int(layout.offsets[number])) if count <= _MAX_STRIP_BYTES else b""
        if len(data) < max(count, 1):
            raise self._error(number, f"the file ends after {len(data)} of the strip's {count} bytes")
        tiff = _single_strip_tiff(layout, layout.strip_rows(number), data)
        try:
            if layout.tags[_COMPRESSION][0] in _DEFLATE:
                zlib.decompress(data)  # verifies the checksum, which libtiff ignores
            # Where libtiff warns, it would fill the pixels with grey.
            strip = self._vips.Image.new_from_buffer(tiff, "", fail_on="warning").numpy()
        except (self._vips.Error, zlib.error) as error:
            raise self._error(number, f"the strip is damaged ({' '.join(str(error).split())})") from error
        return _to_rgb(strip)

    def _error(self, number: int, reason: str) -> TileError:
        return tile_error(self._path, 0, (0, number * self._layout.rows), reason)


def _read_layout(path: Path, page: Any) -> _StripLayout:  # noqa: ANN401 (pages of tifffile have no precise types)
    samples, width, height = page.samplesperpixel, page.imagewidth, page.imagelength
    if page.bitspersample != 8 or samples not in {1, 3, 4} or page.planarconfig != 1 or page.imagedepth != 1:
        raise InputError(
            f"'{path}' holds {samples} channels of {page.bitspersample} bits, not RGB in 8. {_CONVERT_HINT}."
        )
    rows = min(page.rowsperstrip, height)
    offsets, counts = np.array(page.dataoffsets, np.int64), np.array(page.databytecounts, np.int64)
    if len(offsets) != -(-height // rows) or len(counts) != len(offsets) or offsets.min() < 0 or counts.min() < 0:
        raise InputError(f"'{path}': the directory of its strips is damaged. Copy or download it again.")
    row_bytes = width * samples
    if page.compression == _UNCOMPRESSED:
        parts = max(1, _PART_BYTES // row_bytes)
        rows, offsets, counts = _subdivide_strips((rows, height), row_bytes, offsets, min(parts, rows))
    if rows * row_bytes > _MAX_STRIP_BYTES:
        raise InputError(f"'{path}' is stored in strips of {rows * row_bytes / 2**20:,.0f} MiB each. {_CONVERT_HINT}.")
    tags: dict[int, tuple[int, ...]] = {_COMPRESSION: (_UNCOMPRESSED,)}
    tags |= {code: _tag_values(page.tags[code].value) for code in _COPIED_TAGS if code in page.tags}
    return _StripLayout(width=width, height=height, rows=rows, offsets=offsets, counts=counts, tags=tags)


def _subdivide_strips(
    size: tuple[int, int], row_bytes: int, offsets: NDArray[np.int64], part: int
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Divide uncompressed strips into parts of at most ``part`` rows.

    The height of a part divides that of a strip, so that no part crosses from one strip into the next.
    """
    rows, height = size
    if len(offsets) > 1 and rows % part:
        part = max(each for each in range(1, part + 1) if rows % each == 0)
    starts = np.arange(0, height, part)
    counts = np.minimum(part, height - starts) * row_bytes
    return part, offsets[starts // rows] + starts % rows * row_bytes, counts


def _tag_values(value: object) -> tuple[int, ...]:
    if isinstance(value, bytes | tuple | list | np.ndarray):
        return tuple(
            int(each) for each in np.ravel(np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value)
        )
    return (int(value),)  # type: ignore[call-overload]


def _single_strip_tiff(layout: _StripLayout, rows: int, data: bytes) -> bytes:
    """Build a little-endian TIFF of one strip."""
    tags: dict[int, tuple[int, tuple[int, ...]]] = {
        code: (_COPIED_TAGS[code], values) for code, values in layout.tags.items()
    }
    tags |= {
        256: (_LONG, (layout.width,)),
        257: (_LONG, (rows,)),
        273: (_LONG, (8,)),
        278: (_LONG, (rows,)),
        279: (_LONG, (len(data),)),
    }
    data += b"\0" * (len(data) % 2)
    extra_at = 8 + len(data) + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for code, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{_STRUCT[kind]}", *values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", extra_at + len(extra)), extra + packed + b"\0" * (len(packed) % 2)
        entries += struct.pack("<HHI4s", code, kind, len(values), packed)
    header = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return header + data + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + extra


def _to_rgb(strip: Pixels) -> Pixels:
    """Convert 1, 3 or 4 channels to RGB, transparency over white."""
    if strip.ndim == 2 or strip.shape[2] == 1:
        return np.repeat(strip.reshape(*strip.shape[:2], 1), 3, axis=2)
    if strip.shape[2] == 3:
        return strip
    alpha = strip[..., 3:].astype(np.float32) / 255
    return np.rint(strip[..., :3] * alpha + WHITE * (1 - alpha)).astype(np.uint8)


def _resolution_properties(page: Any) -> dict[str, str]:  # noqa: ANN401
    """Collect the tags on resolution under OpenSlide's property names."""
    found = {"tiff.ImageDescription": page.description or ""}
    unit = page.tags.valueof(296, 2)
    found["tiff.ResolutionUnit"] = _RESOLUTION_UNITS.get(int(unit), "none")
    for axis, code in (("X", 282), ("Y", 283)):
        value = page.tags.valueof(code)
        if value is not None and value[1]:
            found[f"tiff.{axis}Resolution"] = str(value[0] / value[1])
    return found
