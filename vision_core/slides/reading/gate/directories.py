"""Directories of a TIFF: what their tags say, and where their tiles or strips lie."""

import logging
import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vision_core.optional import require
from vision_core.slides.reading.jpeg_tiles import TileGrid, are_jpeg_tables, tile_header

JPEG, OLD_JPEG, APERIO_JPEG2000 = 7, 6, frozenset({33003, 33005})
RGB, YCBCR, PALETTE = 2, 6, 3  # photometric interpretation
_MAX_TILE_PIXELS = 4096 * 4096
_MACRO = 8  # bit of tag 254
_RESOLUTION_UNITS = {2: "inch", 3: "centimeter"}
# Small values that the decoding of a tile or strip depends on: fill order, predictor, subsampling of colours.
_DECODING_TAGS = (266, 317, 530)
_COLOUR_MAP, _EXTRA_SAMPLES, _JPEG_TABLES = 320, 338, 347
_WHY = "it reads slides"
_LOG = logging.getLogger("domainsight")
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its warnings repeat what our errors say
_Page = Any  # of tifffile, which has no precise types
# tifffile raises any of these on a damaged directory, depending on the tag.
_PARSE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error, MemoryError)


@dataclass(frozen=True, kw_only=True, eq=False)
class Directory:
    """One directory of a TIFF.

    Attributes:
        name: For messages, such as ``directory 2``.
        width: In pixels.
        height: In pixels.
        tile_width: In pixels; that of the image where it is stored in strips.
        tile_height: In pixels; rows of a strip.
        is_tiled: Stored in tiles, else in strips.
        is_reduced: Marked as a reduced image, or below another directory.
        is_macro: Marked as a picture of the whole glass, as Aperio marks it (9).
        bits: Bits of each sample; more than one number only where samples differ.
        sample_format: Tag 339: 1 unsigned, 2 signed, 3 floating point, 4 undefined, 5 and 6 complex.
        samples: Samples of a pixel.
        extra: Tag 338 of the samples beyond the colours: 0 unspecified, 1 premultiplied alpha, 2 alpha.
        photometric: Tag 262.
        compression: Tag 259.
        is_planar: Every sample has tiles or strips of its own.
        orientation: Tag 274; 1 where absent.
        depth: Planes of a volume; 1 for an image.
        description: Tag 270.
        tables: JPEG tables; may be empty.
        colour_map: 256 values of red, then of green, then of blue; empty without a palette.
        decoding: Further tags that decoding depends on.
        offsets: First byte of each tile or strip.
        counts: Number of bytes of each.
    """

    name: str
    width: int
    height: int
    tile_width: int
    tile_height: int
    is_tiled: bool
    is_reduced: bool
    is_macro: bool
    bits: tuple[int, ...]
    sample_format: int
    samples: int
    extra: tuple[int, ...]
    photometric: int
    compression: int
    is_planar: bool
    orientation: int
    depth: int
    description: str
    tables: bytes
    colour_map: tuple[int, ...]
    decoding: tuple[tuple[int, tuple[int, ...]], ...]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def size(self) -> tuple[int, int]:
        """Return ``(width, height)``."""
        return self.width, self.height

    @property
    def columns(self) -> int:
        """Return the number of tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Return the number of tiles in a column."""
        return -(-self.height // self.tile_height)

    @property
    def planes(self) -> int:
        """Return how often the image is divided into tiles: once, or once a sample."""
        return self.samples if self.is_planar else 1

    @property
    def is_whole(self) -> bool:
        """Return whether there is a sane place for every tile or strip."""
        expected = self.columns * self.rows * self.planes
        sane = len(self.offsets) == len(self.counts) == expected
        return bool(sane and expected and self.offsets.min() >= 0 and self.counts.min() >= 0)

    @cached_property
    def num_missing(self) -> int:
        """Return how many tiles or strips are not stored."""
        return int(np.count_nonzero((self.counts == 0) | (self.offsets == 0)))

    def to_json(self) -> dict[str, Any]:
        """Return everything but the places, as JSON can hold it."""
        names = {each.name for each in fields(self)} - {"offsets", "counts", "tables"}
        return {"tables": self.tables.hex(), **{name: getattr(self, name) for name in sorted(names)}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], offsets: NDArray[np.int64], counts: NDArray[np.int64]) -> Self:
        """Build a directory from ``to_json`` and its places."""
        decoding = tuple((int(code), tuple(values)) for code, values in value["decoding"])
        lists = {name: tuple(value[name]) for name in ("bits", "extra", "colour_map")}
        parts = {**value, **lists, "decoding": decoding, "tables": bytes.fromhex(value["tables"])}
        return cls(**parts, offsets=offsets, counts=counts)


def read_directories(path: Path) -> tuple[tuple[Directory, ...], Mapping[str, str]]:
    """Read all directories, those below others included.

    Returns:
        The directories, none where they are damaged; the tags on resolution of the first, under OpenSlide's names.
    """
    try:
        with require("tifffile", why=_WHY).TiffFile(path) as file:
            pages = list(file.pages)
            found = tuple(_directory(page, name, is_below=is_below) for name, page, is_below in _walk(pages))
            sane = all(min(each.width, each.height, each.tile_width, each.tile_height) > 0 for each in found)
            return (found, _resolution_properties(pages[0])) if sane and found else ((), {})
    except _PARSE_ERRORS:
        _LOG.debug("'%s': directories that cannot be read", path, exc_info=True)
        return (), {}


def tile_grid(directory: Directory) -> TileGrid | None:
    """Return the grid of a directory in 8-bit JPEG tiles of RGB or YCbCr; None for any other."""
    if not _is_rgb_jpeg(directory) or not are_jpeg_tables(directory.tables) or not directory.is_whole:
        return None
    return TileGrid(
        width=directory.width,
        height=directory.height,
        tile_width=directory.tile_width,
        tile_height=directory.tile_height,
        offsets=array("q", directory.offsets.tobytes()),
        counts=array("q", directory.counts.tobytes()),
        header=tile_header(directory.tables, is_rgb=directory.photometric == RGB),
        decode_jpeg=require("simplejpeg", why=_WHY).decode_jpeg,
    )


def _is_rgb_jpeg(directory: Directory) -> bool:
    return bool(
        directory.is_tiled
        and directory.compression == JPEG
        and directory.photometric in {RGB, YCBCR}
        and directory.samples == 3
        and directory.bits == (8,)
        and not directory.is_planar
        and (266, (2,)) not in directory.decoding
        and directory.depth == 1
        and directory.tile_width * directory.tile_height <= _MAX_TILE_PIXELS
    )


def _walk(pages: list[_Page]) -> Iterator[tuple[str, _Page, bool]]:
    for number, page in enumerate(pages):
        yield f"directory {number}", page, False
        for place, below in enumerate(page.pages or () if page.subifds else ()):
            yield f"directory {number}.{place}", below, True


def _directory(page: _Page, name: str, *, is_below: bool) -> Directory:
    bits = _integers(page.tags.valueof(258, page.bitspersample))
    is_tiled = bool(page.is_tiled)
    return Directory(
        name=name,
        width=int(page.imagewidth),
        height=int(page.imagelength),
        tile_width=int(page.tilewidth if is_tiled else page.imagewidth),
        tile_height=int(page.tilelength if is_tiled else min(page.rowsperstrip, page.imagelength)),
        is_tiled=is_tiled,
        is_reduced=is_below or bool(int(page.subfiletype) & 1),
        is_macro=bool(int(page.subfiletype) & _MACRO),
        bits=bits[:1] if len(set(bits)) == 1 else bits,
        sample_format=max(_integers(page.tags.valueof(339, 1)), default=1),
        samples=int(page.samplesperpixel),
        extra=_extra_samples(page),
        photometric=int(page.photometric),
        compression=int(page.compression),
        is_planar=int(page.planarconfig) == 2 and int(page.samplesperpixel) > 1,
        orientation=int(page.tags.valueof(274, 1)),
        depth=int(page.imagedepth),
        description=page.description or "",
        tables=bytes(page.tags.valueof(_JPEG_TABLES, b"") or b""),
        colour_map=_integers(page.tags.valueof(_COLOUR_MAP, ())) if int(page.photometric) == PALETTE else (),
        decoding=tuple((code, _integers(page.tags.valueof(code))) for code in _DECODING_TAGS if code in page.tags),
        offsets=np.array(page.dataoffsets, np.int64),
        counts=np.array(page.databytecounts, np.int64),
    )


def _extra_samples(page: _Page) -> tuple[int, ...]:
    """Return tag 338; samples beyond red, green and blue that it does not list are unspecified."""
    listed = _integers(page.tags.valueof(_EXTRA_SAMPLES, ()))
    return listed or ((0,) * (int(page.samplesperpixel) - 3) if int(page.photometric) == RGB else ())


def _integers(value: object) -> tuple[int, ...]:
    return tuple(int(each) for each in np.ravel(np.asarray(value)))


def _resolution_properties(page: _Page) -> dict[str, str]:
    found = {"tiff.ImageDescription": page.description or ""}
    unit = page.tags.valueof(296, 2)
    found["tiff.ResolutionUnit"] = _RESOLUTION_UNITS.get(int(unit), "none")
    for axis, code in (("X", 282), ("Y", 283)):
        value = page.tags.valueof(code)
        if value is not None and value[1]:
            found[f"tiff.{axis}Resolution"] = str(value[0] / value[1])
    return found
