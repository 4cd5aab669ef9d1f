"""Inspection of a slide: its format, what its file says, its levels and its resolution.

It runs in a child process (``vision_core/sandbox.py``), since OpenSlide may end its process on a damaged file. What it
returns is all that the parent needs to read the slide, so nothing is opened or parsed twice.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.slides.reading.fast_jpeg import FastJpeg
from vision_core.slides.reading.gate.dicom import check_dicom, is_dicom
from vision_core.slides.reading.gate.directories import Directory, read_directories, tile_grid
from vision_core.slides.reading.gate.tiff import (
    TiffPlan,
    format_notes,
    is_stored_alike,
    larger_directory,
    missing_note,
    plan_tiff,
    refuse_contradicted_colours,
    refuse_format,
)
from vision_core.slides.reading.openslide_reader import OpenSlideReader, detect_vendor, read_metadata
from vision_core.slides.reading.resolution import find_resolution
from vision_core.slides.reading.source import Level, Source, TileError
from vision_core.slides.reading.tiff_segments import TiffSegments

OPENSLIDE, SEGMENTS, IMAGE = "openslide", "segments", "image"
_SIGNATURE_BYTES = 4096
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IMAGE_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP"}
_HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<?xml")
_LFS_START = b"version https://git-lfs"
_GENERIC = "generic-tiff"
_REGULAR_GRID_VENDORS = frozenset({"aperio", _GENERIC})  # other scanners' tiles overlap or are shifted
_MEAN_VENDORS = _REGULAR_GRID_VENDORS | {"dicom", "trestle"}  # OpenSlide knows of their levels no more than the sizes
_ILLUMINATION_KEYS = ("mirax.GENERAL.SLIDE_TYPE", "leica.illumination-source")
_ROUNDING_PX = 1.0  # of a level's side, by programs that halve an image again and again
_MAX_SHIFT_PX = 4.0  # of the last pixel of a level, where it is read at the mean of two downsamples
_MAX_EXTENT_DIFFERENCE = 0.015
_PROBE_PX = 128
_STRUCTURE = 8.0  # standard deviation of bytes; glass has less


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What is known of a slide.

    Attributes:
        reader: ``openslide``, ``segments`` or ``image``.
        levels: All levels, finest first.
        properties: For the resolution, under OpenSlide's names.
        directories: The TIFF directory of each level; None where it is not known.
        notes: Notes to the user.
        vendor: OpenSlide's name of the format.
        missing: Missing tiles and all tiles, by size of the level.
        extents: Width and height in millimetres, by size of the level, where the file gives them.
        handle: The slide as OpenSlide has opened it.
    """

    reader: str
    levels: tuple[Level, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[Directory | None, ...] = ()
    notes: tuple[str, ...] = ()
    vendor: str = ""
    missing: Mapping[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    extents: Mapping[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    handle: object | None = None


def inspect_slide(
    path: Path, *, is_fast: bool, stated: Mapping[str, float | None]
) -> tuple[dict[str, NDArray[np.int64]], dict[str, Any]]:
    """Inspect a slide.

    Args:
        path: The file.
        is_fast: Whether JPEG tiles may be decoded directly.
        stated: Microns per pixel that the user states, by source, in order of precedence.

    Returns:
        Places of the tiles of some levels (``offsets0``, ``counts0``); the reader, levels, resolution, notes, and the
        directories of these levels.

    Raises:
        InputError: The file is no slide, is damaged, holds no 8-bit colour image, or its resolution is not known.
    """
    opened = _open(path, is_stated=any(each is not None for each in stated.values()))
    resolution = find_resolution(str(path), opened.properties, stated)
    numbers, notes = _usable_levels(path, opened)
    levels = [opened.levels[number] for number in numbers]
    directories = [opened.directories[number] for number in numbers]
    needed = [each if opened.reader == SEGMENTS else None for each in directories]
    if opened.reader == OPENSLIDE:
        reader = OpenSlideReader(path, levels, numbers, opened.handle)
        fast = _fast_levels(path, reader, directories) if is_fast and opened.vendor in _REGULAR_GRID_VENDORS else None
        needed = [each if fast and fast.has(number) else None for number, each in enumerate(directories)]
        # Levels that are decoded directly were compared with OpenSlide's just now.
        _probe(reader, [number for number in range(len(levels)) if not (fast and fast.has(number))])
        notes += _colour_note(fast if fast and fast.has(0) else reader, levels[0])
    elif opened.reader == SEGMENTS:
        notes += _colour_note(TiffSegments(path, [each for each in needed if each is not None], levels), levels[0])
    arrays: dict[str, NDArray[np.int64]] = {}
    for number, each in enumerate(needed):
        if each is not None:
            arrays |= {f"offsets{number}": each.offsets, f"counts{number}": each.counts}
    return arrays, {
        "reader": opened.reader,
        "levels": [asdict(level) for level in levels],
        "numbers": numbers,
        "directories": {number: each.to_json() for number, each in enumerate(needed) if each is not None},
        "resolution": asdict(resolution),
        "notes": [*resolution.notes, *opened.notes, *notes],
    }


def _open(path: Path, *, is_stated: bool) -> _Opened:
    start = _read_signature(path)
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        raise InputError(f"'{path}' is no slide without its data: its folder '{path.stem}' is not beside it; copy it.")
    dicom = check_dicom(path) if is_dicom(start) else None
    vendor = detect_vendor(path) or ""
    is_tiff = start.startswith(_TIFF_SIGNATURES)
    if is_tiff and vendor in {"", _GENERIC}:
        return _open_tiff(path, vendor)
    if vendor:
        found = read_metadata(path)
        _refuse_fluorescence(path, found.properties)
        opened = _Opened(
            reader=OPENSLIDE,
            levels=found.levels,
            properties={**found.properties, **(dicom.properties if dicom else {})},
            directories=(None,) * len(found.levels),
            handle=found.handle,
            vendor=vendor,
            missing=dicom.missing if dicom else {},
            extents=dicom.extents if dicom else {},
        )
        return _with_directories(path, opened) if is_tiff else opened
    if path.suffix.lower() == ".mrxs":
        raise InputError(
            f"'{path}' is no slide without its data: its folder '{path.stem}' is incomplete; copy it again."
        )
    kind = next((kind for mark, kind in _IMAGE_SIGNATURES.items() if start.startswith(mark)), None)
    if kind is None:
        raise InputError(f"'{path}' is of no slide format known here: {_diagnose(start)}.")
    if not is_stated:
        raise InputError(
            f"'{path}' is a plain image ({kind}), not a slide, and does not give microns per pixel. To use it as a "
            "slide, give them in a column 'mpp' of the CSV of slides, or with read.mpp=0.5."
        )
    return _Opened(reader=IMAGE)


def _open_tiff(path: Path, vendor: str) -> _Opened:
    """Open a TIFF without a scanner's own format."""
    directories, properties = read_directories(path)
    if not directories:
        raise InputError(
            f"'{path}' begins as a TIFF, but its directories cannot be read: it is damaged or cut short. "
            "Copy or download it again."
        )
    plan = plan_tiff(path, directories, is_known_to_openslide=bool(vendor))
    if not plan.is_for_openslide:
        return _segments(plan, properties)
    found = read_metadata(path)
    return _Opened(
        reader=OPENSLIDE,
        levels=found.levels,
        properties=found.properties,
        directories=(plan.directories[0], *_directories_of(found.levels[1:], directories)),
        handle=found.handle,
        notes=plan.notes,
        vendor=vendor,
    )


def _segments(plan: TiffPlan, properties: Mapping[str, str]) -> _Opened:
    base = plan.directories[0]
    levels = [
        Level(
            width=each.width,
            height=each.height,
            downsample=(base.width / each.width + base.height / each.height) / 2,
        )
        for each in plan.directories
    ]
    return _Opened(
        reader=SEGMENTS,
        levels=tuple(levels),
        properties=properties,
        directories=plan.directories,
        notes=plan.notes,
        vendor=_GENERIC,
    )


def _with_directories(path: Path, opened: _Opened) -> _Opened:
    """Check the directories of a scanner's TIFF, as far as they are those of OpenSlide's levels."""
    directories, _ = read_directories(path)
    known = _directories_of(opened.levels, directories)
    base = known[0]
    if base is None:
        return opened
    refuse_format(path, base, is_scanners=True)
    size = opened.levels[0].size
    larger = larger_directory([each for each in directories if each.is_tiled], size)
    if larger and opened.vendor in _REGULAR_GRID_VENDORS:
        raise InputError(
            f"'{path}' begins with a picture of {size[0]} x {size[1]} pixels, while {larger.name} holds one of "
            f"{larger.width} x {larger.height}. Copy or convert it again."
        )
    return replace(opened, directories=known, notes=(*opened.notes, *format_notes(base)))


def _directories_of(levels: Sequence[Level], directories: Sequence[Directory]) -> tuple[Directory | None, ...]:
    """Find the directory of each level; None where two have its size, or none."""
    tiled = [each for each in directories if each.is_tiled]
    same = [[each for each in tiled if each.size == level.size] for level in levels]
    return tuple(each[0] if len(each) == 1 else None for each in same)


def _usable_levels(path: Path, opened: _Opened) -> tuple[list[int], list[str]]:
    """Choose the levels whose pixels lie where OpenSlide and we look for them; return their numbers, and notes.

    Raises:
        InputError: JPEG tiles contradict their directory, or nothing of level 0 is stored.
    """
    numbers: list[int] = []
    notes: list[str] = []
    for number, level in enumerate(opened.levels):
        directory = opened.directories[number]
        name = f"Level {number} ({level.width} x {level.height} pixels) is left out: "
        if directory is not None:
            refuse_contradicted_colours(path, directory)
        missing, total = _missing_tiles(opened, number)
        told = _unusable(opened, number, numbers)
        if told or (number and total and missing == total):
            notes.append(name + (told or "none of its tiles is stored."))
            continue
        if missing:
            notes.append(missing_note(path, (missing, total), number))
        numbers.append(number)
    return numbers, notes


def _missing_tiles(opened: _Opened, number: int) -> tuple[int, int]:
    level, directory = opened.levels[number], opened.directories[number]
    if directory is not None:
        return directory.num_missing, len(directory.counts)
    return opened.missing.get(level.size, (0, 0))


def _unusable(opened: _Opened, number: int, kept: Sequence[int]) -> str:
    """Return why a level cannot be used; empty where it can."""
    base, level = opened.levels[0], opened.levels[number]
    if any(level.size == opened.levels[each].size for each in kept):
        return "another one has this size (focal planes?)."
    first, own = opened.directories[0], opened.directories[number]
    if opened.vendor == _GENERIC and first is not None and own is not None and not is_stored_alike(own, first):
        return "it is stored in another way than level 0."
    if own is not None and own.is_macro:
        return "it is marked as a picture of the whole glass."
    extents = [opened.extents.get(each.size) for each in (base, level)]
    if extents[0] and extents[1] and not np.allclose(extents[0], extents[1], rtol=_MAX_EXTENT_DIFFERENCE):
        told = " and ".join(f"{width:.4g} x {height:.4g} mm" for width, height in filter(None, extents))
        return f"level 0 and it cover {told}, so it is padded or stretched."
    ratios = base.width / level.width, base.height / level.height
    is_mean = abs(level.downsample - sum(ratios) / 2) < 1e-6 * level.downsample
    if not number or not is_mean:  # else OpenSlide knows the downsample from the scanner
        return ""
    shift = max(abs(base.width / level.downsample - level.width), abs(base.height / level.downsample - level.height))
    is_strict = opened.vendor in _MEAN_VENDORS
    if shift <= _MAX_SHIFT_PX and (not is_strict or _is_rounded(base, level)):
        return ""
    return f"level 0 is {ratios[0]:.4g} times as wide and {ratios[1]:.4g} times as high, so it is padded or stretched."


def _is_rounded(base: Level, level: Level) -> bool:
    """Return whether one downsample gives both sides of a level, each rounded to whole pixels."""
    sides = ((base.width, level.width), (base.height, level.height))
    low = max(whole / (part + _ROUNDING_PX) for whole, part in sides)
    high = min(whole / (part - _ROUNDING_PX) if part > _ROUNDING_PX else float("inf") for whole, part in sides)
    return low < high


def _fast_levels(path: Path, reader: OpenSlideReader, directories: Sequence[Directory | None]) -> FastJpeg:
    """Return the reader of the levels that are decoded directly with OpenSlide's pixels."""
    grids = [None if each is None else tile_grid(each) for each in directories]
    equal = FastJpeg(path, reader.levels, grids).equals(reader)
    return FastJpeg(
        path, reader.levels, [grid if is_equal else None for grid, is_equal in zip(grids, equal, strict=True)]
    )


def _probe(reader: OpenSlideReader, numbers: Iterable[int]) -> None:
    """Read the middle of levels, since what ends the process must end the child."""
    for number in numbers:
        with suppress(TileError):
            reader.read(number, *_middle(reader.levels[number]))


def _colour_note(reader: Source | FastJpeg, level: Level) -> Iterator[str]:
    """Tell where the middle of the slide has structure, but no colour."""
    with suppress(TileError):
        pixels = reader.read(0, *_middle(level))
        if pixels is not None and pixels.std() > _STRUCTURE and (pixels == pixels[..., :1]).all():
            yield "The middle of the slide is grey: it seems to have no colour."


def _middle(level: Level) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return a small region: its corner in pixels of level 0, and its size."""
    size = min(_PROBE_PX, level.width), min(_PROBE_PX, level.height)
    x, y = (round((side - part) / 2 * level.downsample) for side, part in zip(level.size, size, strict=True))
    return (x, y), size


def _refuse_fluorescence(path: Path, properties: Mapping[str, str]) -> None:
    told = next((name for name in _ILLUMINATION_KEYS if "FLUORESC" in properties.get(name, "").upper()), None)
    if told:
        raise InputError(
            f"'{path}' is a fluorescence slide ('{told}' is '{properties[told]}'), no bright-field slide. "
            "Give a slide with a stain that is seen in white light."
        )


def _read_signature(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(_SIGNATURE_BYTES)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"'{path}' cannot be opened: {(error.strerror or 'no reason given').lower()}.") from error
    if not start:
        raise InputError(f"'{path}' is empty (0 bytes). Copy or download it again.")
    return start


def _diagnose(start: bytes) -> str:
    if not start.strip(b"\0"):
        return "it begins with zeros; copy or download it again"
    if start.lstrip().lower().startswith(_HTML_STARTS):
        return "it looks like HTML (a login page?); download it again"
    if start.startswith(_LFS_START):
        return "it is a Git LFS pointer; run 'git lfs pull'"
    return "convert it to a tiled TIFF, or download it again"
