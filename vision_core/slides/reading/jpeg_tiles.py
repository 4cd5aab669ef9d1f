"""The JPEG tiles of a TIFF's level: how their bytes become pixels, and when they do not.

A tile is an abbreviated JPEG: its tables stand in the directory, and so does whether its colours are RGB (as Aperio
writes them) or YCbCr. It is therefore decoded behind a header of those tables and a marker of its colours.
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
_MARKER, _TABLES = 0xFF, 0xC4
_BASELINE = frozenset({0xC0, 0xC1})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLE_MARKERS = frozenset({0xC4, 0xDB, 0xDD})
_WITH_LENGTH = _FRAMES | _TABLE_MARKERS | {*range(0xE0, 0xF0), 0xFE}
_COLOUR_MARKERS = frozenset({0xE0, 0xEE})  # JFIF and Adobe, which could contradict the directory
_FIRST_AC_TABLE, _LENGTHS = 0x10, 16
_END_OF_BLOCK = 0
_ZEROS = bytes(32)  # longer than the code of a block of any photograph
_LEAST_LIMIT, _BYTES_A_PIXEL = 2**20, 6


class DamagedTileError(Exception):
    """The bytes of a tile are no whole JPEG of its size.

    Attributes:
        is_zeroed: A part of it is zeroed, which decoders need not notice.
    """

    def __init__(self, reason: str, *, is_zeroed: bool = False) -> None:
        super().__init__(reason)
        self.is_zeroed = is_zeroed


@dataclass(frozen=True, kw_only=True, eq=False)
class TileGrid:
    """The tiles of one level.

    Attributes:
        width: Pixels of the level.
        height: Likewise.
        tile_width: Pixels of a tile.
        tile_height: Likewise.
        offsets: First byte of each tile in the file, row after row.
        counts: Bytes of each; 0 where there is none.
        header: What a tile's JPEG begins with.
        decode_jpeg: That of simplejpeg.
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
        """Tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Tiles in a column."""
        return -(-self.height // self.tile_height)

    def is_missing(self, column: int, row: int) -> bool:
        """Whether the file holds no such tile."""
        number = row * self.columns + column
        return not self.counts[number] or not self.offsets[number]

    def decode(self, file: int, column: int, row: int) -> Pixels:
        """A tile's pixels, as it is in the file: at the edges larger than the level.

        Args:
            file: Descriptor of the file.
            column: Of the tile.
            row: Likewise.

        Returns:
            ``(tile_height, tile_width, 3)`` uint8, RGB.

        Raises:
            DamagedTileError: The bytes are no whole JPEG of this size. Nothing is filled in.
            OSError: The disk or share failed.
        """
        number = row * self.columns + column
        return self._pixels(self._stream(file, self.offsets[number], self.counts[number]))

    def _stream(self, file: int, offset: int, count: int) -> bytes:
        if count > max(_LEAST_LIMIT, _BYTES_A_PIXEL * self.tile_width * self.tile_height):
            raise DamagedTileError(f"it is said to have {count} bytes")
        data = os.pread(file, count, offset)
        if len(data) < count:
            raise DamagedTileError(f"the file ends after {len(data)} of its {count} bytes")
        if data[:2] != _START:
            raise DamagedTileError("its bytes are no JPEG")
        stream = self.header + data[_after_colour_markers(data) :]
        width, height = _frame_size(stream, len(self.header))
        if (width, height) != (self.tile_width, self.tile_height):
            raise DamagedTileError(f"it has {width} x {height} pixels")
        if data.find(_ZEROS, data.find(_SCAN)) >= 0 and not _is_zero_a_code(stream):
            raise DamagedTileError("a part of it is zeroed", is_zeroed=True)
        return stream

    def _pixels(self, stream: bytes) -> Pixels:
        buffer = np.empty((self.tile_height, self.tile_width, 3), np.uint8)
        try:
            # Strict: what the decoder would warn of and fill with grey is an error.
            self.decode_jpeg(stream, colorspace="RGB", buffer=buffer, strict=True)
        except (ValueError, RuntimeError) as error:
            raise DamagedTileError(str(error)) from error
        return buffer


def are_tables(tables: bytes) -> bool:
    """Whether these are JPEG tables and nothing else, or none."""
    place, end = len(_START), len(tables) - len(_END)
    if not tables:
        return True
    while place < end and tables[place] == _MARKER and tables[place + 1] in _TABLE_MARKERS:
        place += 2 + int.from_bytes(tables[place + 2 : place + 4], "big")
    return place == end and tables[:2] == _START and tables[-2:] == _END


def tile_header(tables: bytes, *, is_rgb: bool) -> bytes:
    """What to put before a tile from which its start marker is cut.

    Args:
        tables: The directory's JPEG tables, a JPEG of tables alone; may be empty.
        is_rgb: Whether its colours are RGB, else YCbCr.
    """
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + (b"\x00" if is_rgb else b"\x01")
    return _START + tables[2:-2] + adobe


def _after_colour_markers(data: bytes) -> int:
    place = len(_START)
    while place + 4 <= len(data) and data[place] == _MARKER and data[place + 1] in _COLOUR_MARKERS:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place


def _frame_size(stream: bytes, place: int) -> tuple[int, int]:
    """Width and height, read as strictly as can be: the decoder trusts a buffer to be large enough for any size."""
    while place + 9 <= len(stream) and stream[place] == _MARKER and stream[place + 1] in _WITH_LENGTH:
        if stream[place + 1] in _FRAMES:
            height, width = stream[place + 5 : place + 7], stream[place + 7 : place + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    raise DamagedTileError("its header is damaged")


def _is_zero_a_code(stream: bytes) -> bool:
    """Whether zeros are an even area, as with tables made for one image; in the usual ones they are ripples."""
    found = True
    for marker, segment in _segments(stream):
        if marker in _FRAMES - _BASELINE:
            return True
        if marker == _TABLES:
            for kind, symbols in _huffman_tables(segment):
                found = symbols[:1] == bytes([_END_OF_BLOCK]) if kind == _FIRST_AC_TABLE else found
    return found


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    place = len(_START)
    while place + 4 <= len(stream) and stream[place] == _MARKER and stream[place + 1] != _SCAN[1]:
        length = int.from_bytes(stream[place + 2 : place + 4], "big")
        yield stream[place + 1], stream[place + 4 : place + 2 + length]
        place += 2 + length


def _huffman_tables(segment: bytes) -> Iterator[tuple[int, bytes]]:
    while len(segment) > _LENGTHS:
        first = 1 + _LENGTHS
        count = sum(segment[1:first])
        yield segment[0], segment[first : first + count]
        segment = segment[first + count :]
