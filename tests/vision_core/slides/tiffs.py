"""Tiled TIFFs byte by byte, in every kind of JPEG that scanners write and in JPEG 2000, and damage done to them."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image

from vision_core.randomness import key

Pixels = NDArray[np.uint8]
APERIO = "Aperio Image Library (made)\n(tiles) JPEG|AppMag = 20|MPP = 0.5"
_SAMPLING = {"444": (1, 1), "422": (2, 1), "420": (2, 2), "440": (1, 2)}
_APERIO_JPEG2000 = 33005
_KINDS = {"H": 3, "I": 4, "B": 7, "c": 2}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How tiles are written.

    Attributes:
        subsampling: Of the colours.
        is_rgb: Colours stored as RGB, as Aperio does; else YCbCr.
        is_jpeg2000: RGB in JPEG 2000, which OpenSlide knows of slides described as Aperio's.
        has_tables: Tables once in the directory; else in each tile, behind a JFIF header.
        is_optimised: Tables made for each tile, which have to stand in it.
        tile: Width and height.
        missing: Numbers of tiles of level 0 that are left out.
        description: Of the image.
        resolution: Pixels per centimetre, x and y; none is written for None.
    """

    subsampling: str = "420"
    is_rgb: bool = False
    is_jpeg2000: bool = False
    has_tables: bool = True
    is_optimised: bool = False
    tile: tuple[int, int] = (64, 64)
    missing: frozenset[int] = frozenset()
    description: str = ""
    resolution: tuple[int, int] | None = (20_000, 20_000)


def tissue(size: tuple[int, int], seed: int = 0) -> Pixels:
    """``(*size, 3)`` uint8, smooth and coloured, with grain."""
    generator = np.random.default_rng(key("tiffs", seed))
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(x / a + generator.uniform(0, 6)) * np.cos(y / b) for a, b in ((23, 31), (11, 47), (37, 17))]
    return np.clip(np.stack(waves, -1) * 60 + 150 + generator.normal(0, 6, (*size, 3)), 0, 255).astype(np.uint8)


def pyramid(pixels: Pixels, steps: Sequence[int] = (1, 2, 4)) -> list[Pixels]:
    """The image at each step, every so manieth pixel."""
    return [np.ascontiguousarray(pixels[::step, ::step]) for step in steps]


def write_tiff(path: Path, levels: Sequence[Pixels], kind: Kind | None = None) -> Path:
    """Write one directory a level."""
    kind = kind or Kind()
    content, previous = bytearray(struct.pack("<2sHI", b"II", 42, 0)), 4
    for number, level in enumerate(levels):
        tables, tiles = _encode(level, kind)
        offsets, counts = [], []
        for place, tile in enumerate(tiles):
            is_missing = number == 0 and place in kind.missing
            offsets.append(0 if is_missing else len(content))
            counts.append(0 if is_missing else len(tile))
            content += b"" if is_missing else tile + b"\0" * (len(tile) % 2)
        tags = _tags(level, kind, tables, number)
        tags |= {324: ("I", offsets), 325: ("I", counts)}
        struct.pack_into("<I", content, previous, len(content) + len(content) % 2)
        previous = _append_directory(content, tags)
    path.write_bytes(bytes(content))
    return path


def tile_place(path: Path, number: int, level: int = 0) -> tuple[int, int]:
    """First byte and length of a tile."""
    with tifffile.TiffFile(path) as file:
        page = [page for page in file.pages if page.is_tiled][level]  # type: ignore[union-attr]
        return int(page.dataoffsets[number]), int(page.databytecounts[number])


def overwrite(path: Path, start: int, data: bytes) -> None:
    """Put ``data`` into a file."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


def _encode(level: Pixels, kind: Kind) -> tuple[bytes, list[bytes]]:
    width, height = kind.tile
    rows, columns = -(-level.shape[0] // height), -(-level.shape[1] // width)
    room = ((0, rows * height - level.shape[0]), (0, columns * width - level.shape[1]), (0, 0))
    padded = np.pad(level, room, mode="edge")
    streams = [
        _jpeg(padded[y * height : (y + 1) * height, x * width : (x + 1) * width], kind)
        for y in range(rows)
        for x in range(columns)
    ]
    if kind.is_jpeg2000 or not kind.has_tables:
        return b"", streams
    tables, _ = _divide(streams[0])
    return b"\xff\xd8" + tables + b"\xff\xd9", [b"\xff\xd8" + _divide(stream)[1] for stream in streams]


def _jpeg(tile: Pixels, kind: Kind) -> bytes:
    if kind.is_jpeg2000:
        stream = io.BytesIO()
        Image.fromarray(tile).save(stream, "JPEG2000", no_jp2=True, quality_layers=[15], mct=0)
        return stream.getvalue()
    if kind.is_optimised:
        stream = io.BytesIO()
        Image.fromarray(tile).save(stream, "JPEG", quality=80, optimize=True, subsampling=":".join(kind.subsampling))
        return stream.getvalue()
    if kind.is_rgb:
        red, green, blue = (np.ascontiguousarray(tile[..., channel]) for channel in range(3))
        return bytes(simplejpeg.encode_jpeg_yuv_planes(red, green, blue, quality=80))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(tile), quality=80, colorsubsampling=kind.subsampling))


def _divide(stream: bytes) -> tuple[bytes, bytes]:
    """Tables of a JPEG, and the rest from its frame on."""
    place, tables = 2, b""
    while stream[place + 1] != 0xC0:
        length = 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
        tables += stream[place : place + length] if stream[place + 1] == 0xDB else b""
        place += length
    frame, rest = place, b""
    while stream[place + 1] != 0xDA:
        length = 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
        is_table = stream[place + 1] in {0xC4, 0xDB}
        tables += stream[place : place + length] if is_table else b""
        rest += b"" if is_table else stream[place : place + length]
        place += length
    assert frame < place
    return tables, rest + stream[place:]


def _tags(level: Pixels, kind: Kind, tables: bytes, number: int) -> dict[int, tuple[str, list[int]]]:
    is_rgb = kind.is_rgb or kind.is_jpeg2000
    tags: dict[int, tuple[str, list[int]]] = {
        254: ("I", [int(number > 0)]),
        256: ("I", [level.shape[1]]),
        257: ("I", [level.shape[0]]),
        258: ("H", [8, 8, 8]),
        259: ("H", [_APERIO_JPEG2000 if kind.is_jpeg2000 else 7]),
        262: ("H", [2 if is_rgb else 6]),
        277: ("H", [3]),
        284: ("H", [1]),
        322: ("I", [kind.tile[0]]),
        323: ("I", [kind.tile[1]]),
    }
    if kind.description:
        tags[270] = ("c", list(kind.description.encode() + b"\0"))
    if tables:
        tags[347] = ("B", list(tables))
    if not is_rgb:
        tags[530] = ("H", list(_SAMPLING[kind.subsampling]))
    if kind.resolution and number == 0:
        tags |= {282: ("R", [kind.resolution[0], 1]), 283: ("R", [kind.resolution[1], 1]), 296: ("H", [3])}
    return tags


def _append_directory(content: bytearray, tags: dict[int, tuple[str, list[int]]]) -> int:
    """Returns where the place of the next directory is to be written."""
    content += b"\0" * (len(content) % 2)
    start = len(content)
    extra_at, entries, extra = start + 2 + 12 * len(tags) + 4, b"", b""
    for code, (letter, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'I' if letter == 'R' else 'B' if letter == 'c' else letter}", *values)
        count = len(values) // 2 if letter == "R" else len(values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", extra_at + len(extra)), extra + packed + b"\0" * (len(packed) % 2)
        entries += struct.pack("<HHI4s", code, 5 if letter == "R" else _KINDS[letter], count, packed)
    content += struct.pack("<H", len(tags)) + entries + b"\0" * 4 + extra
    return start + 2 + 12 * len(tags)
