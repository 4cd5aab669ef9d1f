"""Decoding of the JPEG tiles of a TIFF, with damage checks.

A tile is an abbreviated JPEG: its tables are in the directory, and so is its colour space, RGB (as Aperio writes it) or
YCbCr. It is therefore decoded behind a header of those tables and a marker of the colour space.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vision_core.slides.reading.source import Pixels

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = b"\xff\xda"
_MARKER, _HUFFMAN_MARKER = 0xFF, 0xC4
_BASELINE = frozenset({0xC0, 0xC1})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLE_MARKERS = frozenset({0xC4, 0xDB, 0xDD})
_SEGMENT_MARKERS = _FRAMES | _TABLE_MARKERS | {*range(0xE0, 0xF0), 0xFE}
_JFIF, _ADOBE, _ADOBE_TRANSFORM = 0xE0, 0xEE, 11
_CODING_STYLE, _TRANSFORM = b"\xff\x52", 8  # of JPEG 2000: the marker, and where it tells of a transform of colours
_COLOUR_MARKERS = frozenset({_JFIF, _ADOBE})
_AC_TABLE_0, _CODE_LENGTHS = 0x10, 16
_END_OF_BLOCK = 0
_ZEROS = bytes(32)  # longer than the code of any block of a photograph
_MIN_BYTE_LIMIT, _MAX_BYTES_PER_PIXEL = 2**20, 6


class DamagedTileError(Exception):
    """Error of a tile that is no complete JPEG of its size.

    Attributes:
        is_zeroed: A part of the tile is overwritten with zeros, which decoders may not notice.
    """

    def __init__(self, reason: str, *, is_zeroed: bool = False) -> None:
        super().__init__(reason)
        self.is_zeroed = is_zeroed


@dataclass(frozen=True, kw_only=True, eq=False)
class TileGrid:
    """Grid of the tiles of one level.

    Attributes:
        width: Of the level, in pixels.
        height: Of the level, in pixels.
        tile_width: In pixels.
        tile_height: In pixels.
        offsets: First byte of each tile in the file, row by row.
        counts: Number of bytes of each tile; 0 where a tile is missing.
        header: Bytes to decode each tile behind (``tile_header``).
        decode_jpeg: ``simplejpeg.decode_jpeg``.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    offsets: Sequence[int]
    counts: Sequence[int]
    header: bytes
    decode_jpeg: Callable[..., Any]

    @cached_property
    def columns(self) -> int:
        """Return the number of tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Return the number of tiles in a column."""
        return -(-self.height // self.tile_height)

    def is_missing(self, column: int, row: int) -> bool:
        """Return whether the file holds no such tile."""
        number = row * self.columns + column
        return not self.counts[number] or not self.offsets[number]

    def decode(self, file: int, column: int, row: int) -> Pixels:
        """Decode a whole tile, also beyond the edge of the level.

        Args:
            file: Descriptor of the file.
            column: Of the tile in the grid.
            row: Of the tile in the grid.

        Returns:
            ``(tile_height, tile_width, 3)`` uint8, RGB.

        Raises:
            DamagedTileError: The bytes are no complete JPEG of this size. Missing pixels are never filled in.
            OSError: The disk or share failed.
        """
        number = row * self.columns + column
        stream = self._read_stream(file, self.offsets[number], self.counts[number])
        buffer = np.empty((self.tile_height, self.tile_width, 3), np.uint8)
        try:
            # Strict: where the decoder would warn and fill with grey, it raises.
            self.decode_jpeg(stream, colorspace="RGB", buffer=buffer, strict=True)
        except (ValueError, RuntimeError) as error:
            raise DamagedTileError(str(error)) from error
        return buffer

    def _read_stream(self, file: int, offset: int, count: int) -> bytes:
        if count > max(_MIN_BYTE_LIMIT, _MAX_BYTES_PER_PIXEL * self.tile_width * self.tile_height):
            raise DamagedTileError(f"its size is given as {count} bytes")
        data = os.pread(file, count, offset)
        if len(data) < count:
            raise DamagedTileError(f"the file ends after {len(data)} of its {count} bytes")
        if data[:2] != _START:
            raise DamagedTileError("its bytes are no JPEG")
        stream = self.header + data[_skip_colour_markers(data) :]
        width, height = _frame_size(stream, len(self.header))
        if (width, height) != (self.tile_width, self.tile_height):
            raise DamagedTileError(f"it has {width} x {height} pixels")
        if data.find(_ZEROS, data.find(_SCAN)) >= 0 and not _is_zero_run_valid(stream):
            raise DamagedTileError("a part of it is zeroed", is_zeroed=True)
        return stream


def are_jpeg_tables(tables: bytes) -> bool:
    """Return whether these bytes are empty or JPEG tables alone."""
    position, end = len(_START), len(tables) - len(_END)
    if not tables:
        return True
    while position < end and tables[position] == _MARKER and tables[position + 1] in _TABLE_MARKERS:
        position += 2 + int.from_bytes(tables[position + 2 : position + 4], "big")
    return position == end and tables[:2] == _START and tables[-2:] == _END


def tile_header(tables: bytes, *, is_rgb: bool) -> bytes:
    """Build the header of a tile whose start marker is cut off.

    Args:
        tables: JPEG tables of the directory, a JPEG of tables alone; may be empty.
        is_rgb: The colour space is RGB, else YCbCr.
    """
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + (b"\x00" if is_rgb else b"\x01")
    return _START + tables[2:-2] + adobe


def stated_colours(stream: bytes) -> str | None:
    """Return the colour space that the markers of a JPEG of three channels state: ``RGB``, ``YCbCr`` or None.

    As decoders of plain JPEG read them: JFIF means YCbCr, Adobe's marker says which, and so do channels named R, G, B.
    """
    segments = list(_segments(stream))
    if any(marker == _JFIF and segment[:5] == b"JFIF\0" for marker, segment in segments):
        return "YCbCr"
    for marker, segment in segments:
        if marker == _ADOBE and segment[:5] == b"Adobe" and len(segment) > _ADOBE_TRANSFORM:
            return "YCbCr" if segment[_ADOBE_TRANSFORM] else "RGB"
    return "RGB" if any(marker in _FRAMES and segment[6:15:3] == b"RGB" for marker, segment in segments) else None


def transformed_colours(stream: bytes) -> str | None:
    """Return what a JPEG 2000 stream says of its colours: ``YCbCr``, which its decoder makes RGB, ``RGB`` or None."""
    place = stream.find(_CODING_STYLE)
    if place < 0 or place + _TRANSFORM >= len(stream):
        return None
    return "YCbCr" if stream[place + _TRANSFORM] else "RGB"


def _skip_colour_markers(data: bytes) -> int:
    position = len(_START)
    while position + 4 <= len(data) and data[position] == _MARKER and data[position + 1] in _COLOUR_MARKERS:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return position


def _frame_size(stream: bytes, position: int) -> tuple[int, int]:
    """Read width and height from the frame header.

    Strictly, since the decoder writes an image of any size into the buffer without a check.
    """
    while position + 9 <= len(stream) and stream[position] == _MARKER and stream[position + 1] in _SEGMENT_MARKERS:
        if stream[position + 1] in _FRAMES:
            height, width = stream[position + 5 : position + 7], stream[position + 7 : position + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    raise DamagedTileError("its header is damaged")


def _is_zero_run_valid(stream: bytes) -> bool:
    """Return whether a run of zero bits can encode an even area.

    It can with tables made for one image, where zeros may be the code of an empty block. With the usual tables zeros
    decode to ripples, and no photograph has so many of them in a row.
    """
    found = True
    for marker, segment in _segments(stream):
        if marker in _FRAMES - _BASELINE:
            return True
        if marker == _HUFFMAN_MARKER:
            for kind, symbols in _huffman_tables(segment):
                found = symbols[:1] == bytes([_END_OF_BLOCK]) if kind == _AC_TABLE_0 else found
    return found


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    position = len(_START)
    while position + 4 <= len(stream) and stream[position] == _MARKER and stream[position + 1] != _SCAN[1]:
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        yield stream[position + 1], stream[position + 4 : position + 2 + length]
        position += 2 + length


def _huffman_tables(segment: bytes) -> Iterator[tuple[int, bytes]]:
    while len(segment) > _CODE_LENGTHS:
        first = 1 + _CODE_LENGTHS
        count = sum(segment[1:first])
        yield segment[0], segment[first : first + count]
        segment = segment[first + count :]
