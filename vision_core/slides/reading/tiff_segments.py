"""TIFFs that OpenSlide does not read: in strips, with alpha, a palette or a turned image, or in WebP.

Only the tiles or strips that a region needs are decoded, by libtiff through pyvips: each is passed to it as a TIFF of
its own, so that every compression that libtiff knows is read, from any position of an image of any size. Opened as a
whole, pyvips would decode all strips first.
"""

import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from vision_core.optional import require
from vision_core.slides.reading.gate.directories import PALETTE, RGB, YCBCR, Directory
from vision_core.slides.reading.source import WHITE, FileDescriptor, Level, Pixels, tile_error
from vision_core.slides.reading.tile_cache import TileCache

COMPRESSIONS = frozenset({1, 5, 7, 8, 32773, 32946, 50001})  # none, LZW, JPEG, deflate, PackBits, WebP
MAX_SEGMENT_BYTES = 256 * 2**20
_CACHE_BYTES = 192 * 2**20  # a row of 512-pixel tiles of an image 100,000 pixels wide
_PART_BYTES = 4 * 2**20
_UNCOMPRESSED, _DEFLATE = 1, frozenset({8, 32946})
_GREY = 1
_PREMULTIPLIED, _ALPHA = 1, 2
_SHORT, _LONG, _UNDEFINED = 3, 4, 7
_LETTERS = {_SHORT: "H", _LONG: "I", _UNDEFINED: "B"}
logging.getLogger("pyvips").setLevel(logging.CRITICAL)  # its warnings repeat what our errors say
_Pair = tuple[int, int]


class TiffSegments:
    """Reader of the tiles or strips of a TIFF, over white where none are stored.

    Args:
        path: The file.
        directories: The directory of each level, of 8 bits a sample; finest first.
        levels: Their sizes and downsamples.
    """

    def __init__(self, path: Path, directories: Sequence[Directory], levels: Sequence[Level]) -> None:
        self._path = path
        self.levels = tuple(levels)
        self._layouts = [_divide_strips(each) for each in directories]
        self._cache = TileCache(_CACHE_BYTES)
        self._file: FileDescriptor | None = FileDescriptor(path)
        self._vips = require("pyvips", why="it reads slides that are stored in strips")

    def read(self, level: int, corner: _Pair, size: _Pair) -> Pixels:
        """Read a region, as ``Source.read`` does, from the nearest pixel of the level."""
        file, layout = self._file, self._layouts[level]
        if file is None:
            raise ValueError(f"'{self._path}' is closed")
        x, y = (round(value / self.levels[level].downsample) for value in corner)
        region = np.full((size[1], size[0], 3), WHITE, np.uint8)
        for number, left, top in _touched(layout, (x, y), size):
            pixels = self._cache.get((level, number), partial(self._decode, file, level, number))
            rows = slice(max(top, y), min(top + len(pixels), y + size[1]))
            columns = slice(max(left, x), min(left + pixels.shape[1], x + size[0]))
            region[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x] = pixels[
                rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
            ]
        return region

    def close(self) -> None:
        """Close the file after the current reads."""
        self._file = None
        self._cache.clear()

    def _decode(self, file: FileDescriptor, level: int, number: int) -> Pixels:
        """Decode a tile or strip to RGB, without what lies beyond the edge of the image."""
        layout = self._layouts[level]
        row, column = divmod(number, layout.columns)
        width = min(layout.tile_width, layout.width - column * layout.tile_width)
        height = min(layout.tile_height, layout.height - row * layout.tile_height)
        step = layout.columns * layout.rows
        try:
            planes = [self._decode_plane(file, layout, number + step * plane) for plane in range(layout.planes)]
        except _DamagedError as error:
            downsample = self.levels[level].downsample
            corner = (column * layout.tile_width * downsample, row * layout.tile_height * downsample)
            raise tile_error(self._path, level, corner, str(error)) from error
        pixels = np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0]
        return _to_rgb(pixels[:height, :width], layout)

    def _decode_plane(self, file: FileDescriptor, layout: Directory, number: int) -> Pixels:
        kind = "tile" if layout.is_tiled else "strip"
        count = int(layout.counts[number])
        data = os.pread(file.fd, count, int(layout.offsets[number])) if count <= MAX_SEGMENT_BYTES else b""
        if len(data) < max(count, 1):
            raise _DamagedError(f"the file ends after {len(data)} of the {kind}'s {count} bytes")
        rows = layout.tile_height
        if not layout.is_tiled:
            rows = min(rows, layout.height - number % layout.rows * rows)
        try:
            if layout.compression in _DEFLATE:
                zlib.decompress(data)  # verifies the checksum, which libtiff ignores
            # Where libtiff warns, it would fill the pixels with grey.
            image = self._vips.Image.new_from_buffer(_single_tiff(layout, rows, data), "", fail_on="warning")
            pixels: Pixels = image.numpy()
        except (self._vips.Error, zlib.error) as error:
            raise _DamagedError(f"the {kind} is damaged ({' '.join(str(error).split())})") from error
        return pixels.reshape(*pixels.shape[:2], -1)


class _DamagedError(Exception):
    """Error of a tile or strip; the text says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class _Tag:
    kind: int
    values: tuple[int, ...]


def _touched(layout: Directory, corner: _Pair, size: _Pair) -> Iterator[tuple[int, int, int]]:
    """List the stored tiles or strips of a region: number, left and upper edge."""
    left, right = max(corner[0], 0), min(corner[0] + size[0], layout.width)
    top, bottom = max(corner[1], 0), min(corner[1] + size[1], layout.height)
    if left >= right or top >= bottom:
        return
    for row in range(top // layout.tile_height, -(-bottom // layout.tile_height)):
        for column in range(left // layout.tile_width, -(-right // layout.tile_width)):
            number = row * layout.columns + column
            if layout.counts[number] and layout.offsets[number]:
                yield number, column * layout.tile_width, row * layout.tile_height


def _divide_strips(directory: Directory) -> Directory:
    """Divide uncompressed strips into parts of a few rows, since one strip may hold the whole image.

    The height of a part divides that of a strip, so that no part crosses from one strip into the next.
    """
    if directory.is_tiled or directory.compression != _UNCOMPRESSED:
        return directory
    row_bytes = directory.width * (1 if directory.is_planar else directory.samples)
    rows = directory.tile_height
    part = min(max(1, _PART_BYTES // row_bytes), rows)
    if directory.rows > 1 and rows % part:
        part = max(each for each in range(1, part + 1) if rows % each == 0)
    starts = np.arange(0, directory.height, part)
    inside = starts % rows * row_bytes
    lengths = np.minimum(part, directory.height - starts) * row_bytes
    places = starts // rows + np.arange(directory.planes)[:, None] * directory.rows
    is_stored = (directory.offsets > 0) & (directory.counts > 0)
    return replace(
        directory,
        tile_height=part,
        offsets=np.where(is_stored[places], directory.offsets[places] + inside, 0).ravel(),
        counts=np.where(is_stored[places], lengths, 0).ravel(),
    )


def _single_tiff(layout: Directory, rows: int, data: bytes) -> bytes:
    """Build a little-endian TIFF of one strip."""
    tags = _tags(layout, rows, len(data))
    data += b"\0" * (len(data) % 2)
    extra_at = 8 + len(data) + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for code, tag in sorted(tags.items()):
        packed = struct.pack(f"<{len(tag.values)}{_LETTERS[tag.kind]}", *tag.values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", extra_at + len(extra)), extra + packed + b"\0" * (len(packed) % 2)
        entries += struct.pack("<HHI4s", code, tag.kind, len(tag.values), packed)
    header = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return header + data + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + extra


def _tags(layout: Directory, rows: int, num_bytes: int) -> dict[int, _Tag]:
    samples = 1 if layout.is_planar else layout.samples
    shorts: dict[int, tuple[int, ...]] = {
        258: (8,) * samples,
        259: (layout.compression,),
        262: (_GREY if layout.is_planar else layout.photometric,),
        277: (samples,),
        320: layout.colour_map,
        # Of no stated meaning, since pyvips would divide colours by an alpha that they are premultiplied with.
        338: () if layout.is_planar else (0,) * len(layout.extra),
        **dict(layout.decoding),
    }
    longs = {256: layout.tile_width, 257: rows, 273: 8, 278: rows, 279: num_bytes}
    tags = {code: _Tag(kind=_SHORT, values=values) for code, values in shorts.items() if values}
    tags |= {code: _Tag(kind=_LONG, values=(value,)) for code, value in longs.items()}
    return tags | ({347: _Tag(kind=_UNDEFINED, values=tuple(layout.tables))} if layout.tables else {})


def _to_rgb(pixels: Pixels, layout: Directory) -> Pixels:
    """Convert to RGB: transparency over white; a fourth sample of no stated meaning is left out."""
    if layout.photometric not in {RGB, YCBCR, PALETTE}:
        raise ValueError(f"photometric interpretation {layout.photometric} is no colour")
    colours = np.ascontiguousarray(pixels[..., :3])
    kind = layout.extra[0] if layout.extra else None
    if kind == _ALPHA:
        alpha = pixels[..., 3:].astype(np.float32) / WHITE
        return np.asarray(np.rint(colours * alpha + WHITE * (1 - alpha)), np.uint8)
    if kind == _PREMULTIPLIED:
        background = WHITE - pixels[..., 3:].astype(np.uint16)
        return np.asarray(np.minimum(colours + background, WHITE), np.uint8)
    return colours
