"""Directories of a TIFF: levels in JPEG tiles, and the first image."""

import logging
import os
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vision_core.optional import require
from vision_core.slides.reading.jpeg_tiles import TileGrid, are_jpeg_tables, tile_header
from vision_core.slides.reading.source import Level

_JPEG = 7
_RGB, _YCBCR = 2, 6  # photometric interpretation
_MAX_TILE_PIXELS = 4096 * 4096
_WHY = "it reads slides"
_LOG = logging.getLogger("domainsight")
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its warnings repeat what our errors say
_Page = Any  # of tifffile, which has no precise types
# tifffile raises any of these on a damaged directory, depending on the tag.
_PARSE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error, MemoryError)


def read_tile_grids(path: Path, levels: Sequence[Level]) -> tuple[TileGrid | None, ...]:
    """Read the tile grid of each level; None without 8-bit JPEG tiles.

    Colours are RGB or YCbCr. Only tiled directories are considered: label and macro image are stored in strips.
    """
    try:
        with require("tifffile", why=_WHY).TiffFile(path) as file:
            pages = [page for page in file.pages if _is_rgb_jpeg(page)]
            return tuple(
                _tile_grid([page for page in pages if _size(page) == (each.width, each.height)]) for each in levels
            )
    except _PARSE_ERRORS:
        _LOG.debug("'%s': directories that cannot be read", path, exc_info=True)
        return (None,) * len(levels)


def read_first_page(path: Path) -> _Page | None:
    """Read the first directory as a page of tifffile; None if damaged."""
    try:
        with require("tifffile", why=_WHY).TiffFile(path) as file:
            page = file.pages.first
            return page if page.imagewidth > 0 and page.imagelength > 0 else None
    except _PARSE_ERRORS:
        _LOG.debug("'%s': directories that cannot be read", path, exc_info=True)
        return None


class FileDescriptor:
    """File descriptor that is closed when its last reader drops it.

    Closed earlier, the same number could already belong to another file.
    """

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


def _is_rgb_jpeg(page: _Page) -> bool:
    return bool(
        page.is_tiled
        and page.compression == _JPEG
        and page.photometric in {_RGB, _YCBCR}
        and page.samplesperpixel == 3
        and page.bitspersample == 8
        and page.planarconfig == 1
        and page.fillorder == 1
        and page.imagedepth == 1
        and page.tilewidth * page.tilelength <= _MAX_TILE_PIXELS
    )


def _size(page: _Page) -> tuple[int, int]:
    return page.imagewidth, page.imagelength


def _tile_grid(pages: Sequence[_Page]) -> TileGrid | None:
    if len(pages) != 1:
        return None  # with two directories of one size it is unknown which holds the level
    page = pages[0]
    tables = page.jpegtables or b""
    if not are_jpeg_tables(tables):
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
