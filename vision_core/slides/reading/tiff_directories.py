"""The directories of a TIFF that hold levels in JPEG tiles, and the resolution of one that OpenSlide does not open."""

import logging
import os
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vision_core.optional import require
from vision_core.slides.reading.jpeg_tiles import TileGrid, are_tables, tile_header
from vision_core.slides.reading.source import Level

_JPEG = 7
_RGB, _YCBCR = 2, 6  # photometric interpretation
_LARGEST_TILE = 4096 * 4096
_WHY = "it reads slides"
_LOG = logging.getLogger("domainsight")
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # says on the terminal what the error says anyway
_Page = Any  # tifffile's, which carries no precise types
# A directory can be wrong in as many ways as there are tags.
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error, MemoryError)


def read_grids(path: Path, levels: Sequence[Level]) -> tuple[TileGrid | None, ...]:
    """The tiles of each level, None where they are not 8-bit RGB or YCbCr in JPEG tiles.

    Only directories with tiles are looked at: label and macro image are in strips.
    """
    try:
        with require("tifffile", why=_WHY).TiffFile(path) as file:
            pages = [page for page in file.pages if _is_taken(page)]
            return tuple(_grid([page for page in pages if _size(page) == (each.width, each.height)]) for each in levels)
    except _DAMAGE:
        _LOG.debug("'%s': directories that cannot be read", path, exc_info=True)
        return (None,) * len(levels)


def read_first(path: Path) -> _Page | None:
    """The first directory, as tifffile gives it; None where it cannot be read."""
    try:
        with require("tifffile", why=_WHY).TiffFile(path) as file:
            page = file.pages.first
            return page if page.imagewidth > 0 and page.imagelength > 0 else None
    except _DAMAGE:
        _LOG.debug("'%s': directories that cannot be read", path, exc_info=True)
        return None


class OpenFile:
    """A descriptor that closes with its last reader, since its number may then be another file's."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def _is_taken(page: _Page) -> bool:
    return bool(
        page.is_tiled
        and page.compression == _JPEG
        and page.photometric in {_RGB, _YCBCR}
        and page.samplesperpixel == 3
        and page.bitspersample == 8
        and page.planarconfig == 1
        and page.fillorder == 1
        and page.imagedepth == 1
        and page.tilewidth * page.tilelength <= _LARGEST_TILE
    )


def _size(page: _Page) -> tuple[int, int]:
    return page.imagewidth, page.imagelength


def _grid(pages: Sequence[_Page]) -> TileGrid | None:
    if len(pages) != 1:
        return None  # two directories of one size: which is the level?
    page = pages[0]
    tables = page.jpegtables or b""
    if not are_tables(tables):
        return None
    grid = TileGrid(
        width=page.imagewidth,
        height=page.imagelength,
        tile_width=page.tilewidth,
        tile_height=page.tilelength,
        offsets=array("q", page.dataoffsets),
        counts=array("q", page.databytecounts),
        header=tile_header(tables, is_rgb=page.photometric == _RGB),
        decode_jpeg=require("simplejpeg", why=_WHY).decode_jpeg,
    )
    is_whole = len(grid.offsets) == len(grid.counts) == grid.columns * grid.rows
    return grid if is_whole and min(grid.offsets) >= 0 and min(grid.counts) >= 0 else None
