"""What a TIFF's directories say of its pixels: refused, or told, before a reader is chosen.

Readers differ in what they make of the same tags. OpenSlide mirrors every tile of a turned image in itself, takes the
high byte of 12 bits for the whole value, and draws CMYK as transparency; so what a slide may be is decided here, alike
for tiles and strips.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

import defusedxml
import defusedxml.ElementTree
import numpy as np

from vision_core.errors import InputError
from vision_core.optional import require
from vision_core.slides.reading.gate.directories import (
    APERIO_JPEG2000,
    JPEG,
    OLD_JPEG,
    PALETTE,
    RGB,
    YCBCR,
    Directory,
)
from vision_core.slides.reading.jpeg_tiles import stated_colours, transformed_colours
from vision_core.slides.reading.source import FileDescriptor
from vision_core.slides.reading.tiff_segments import COMPRESSIONS, MAX_SEGMENT_BYTES

_GREYS = frozenset({0, 1})
_COLOURS = {4: "a mask", 5: "CMYK", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32844: "LogL", 32845: "LogLuv"}
_NUMBERS = {2: "signed integers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}
_UNSPECIFIED = 0
_PALETTE_VALUES = 3 * 256
_MAX_SHORT = 2**16 - 1
_UNCOMPRESSED, _WEBP, _UNTRANSFORMED = 1, 50001, 33003
_AS_STORED = APERIO_JPEG2000 | {JPEG}  # OpenSlide decodes these itself and does not turn them
_SAVE_RGB = "Save it as a tiled TIFF of RGB in 8 bits"
_ASSOCIATED = re.compile(r"\b(label|macro|thumbnail|overview)\b", re.IGNORECASE)
_STACK = re.compile(r"^(?:images|slices|frames)=(\d+)\s*$", re.MULTILINE)
_OF_IMAGEJ = "ImageJ="
_OTHER_IMAGE_SHARE = 0.25  # of the slide's area: a smaller one is a label or an overview
_PROBED_TILES, _HEAD_BYTES = 5, 4096
_STRIPS_NOTE = "The image is stored in strips instead of tiles, so reading it is slow."


@dataclass(frozen=True, kw_only=True)
class TiffPlan:
    """How a TIFF without a scanner's own format is read.

    Attributes:
        directories: The image and its reduced copies, largest first.
        is_for_openslide: OpenSlide gives the right pixels.
        notes: Notes to the user, one sentence each.
    """

    directories: tuple[Directory, ...]
    is_for_openslide: bool
    notes: tuple[str, ...]


def plan_tiff(path: Path, directories: Sequence[Directory], *, is_known_to_openslide: bool) -> TiffPlan:
    """Check a TIFF without a scanner's own format, whose first directory should be the slide.

    Args:
        path: The file.
        directories: All of them.
        is_known_to_openslide: OpenSlide takes the file for a slide.

    Raises:
        InputError: It holds no 8-bit colour image, several, or a larger one behind the first.
    """
    base, *others = directories
    _refuse_larger(path, base, others)
    refuse_format(path, base)
    _refuse_stack(path, base, others)
    levels = sorted(
        (each for each in others if _is_level(each, base) and is_stored_alike(each, base)),
        key=lambda each: -each.width,
    )
    is_for_openslide = is_known_to_openslide and base.is_tiled and not _needs_segments(base)
    if not is_for_openslide:
        for each in (base, *levels):
            _refuse_undecodable(path, each)
    notes = [*format_notes(base)]
    if not base.is_tiled:
        notes.append(_STRIPS_NOTE)
    return TiffPlan(
        directories=(base, *levels),
        is_for_openslide=is_for_openslide,
        notes=(*notes, *_left_out(base, others, is_for_openslide=is_for_openslide)),
    )


def refuse_format(path: Path, directory: Directory, *, is_scanners: bool = False) -> None:
    """Refuse an image that is not 8-bit RGB, stored in a way that readers agree on.

    Args:
        path: The file.
        directory: Of the image.
        is_scanners: The file is of a scanner's own format, which OpenSlide knows how to read; only colours and bits
            are looked at, and whether OpenSlide would turn it.

    Raises:
        InputError: The image is of another kind; the message says of which.
    """
    problem = _value_problem(directory) or _colour_problem(directory)
    if is_scanners and not problem and directory.orientation != 1 and directory.compression not in _AS_STORED:
        problem = f"asks to be turned or mirrored (orientation {directory.orientation}), tile by tile. {_SAVE_RGB}."
    if not is_scanners:
        problem = problem or _storage_problem(directory)
    if problem:
        raise InputError(f"'{path}' {problem}")


def format_notes(directory: Directory) -> Iterator[str]:
    """Tell what of an image is passed over."""
    if directory.orientation != 1:
        yield (
            f"The file asks to be turned or mirrored (orientation {directory.orientation}); pixels are read in the "
            "order in which they are stored."
        )
    if directory.extra[:1] == (_UNSPECIFIED,):
        yield "The meaning of the fourth channel is not stated; it is left out."
    elif directory.extra:
        yield "The fourth channel is transparency; it is composited over white."


def refuse_contradicted_colours(path: Path, directory: Directory) -> None:
    """Refuse JPEG tiles or strips that are marked as RGB where the directory says YCbCr, or the other way round.

    Aperio's JPEG 2000 of YCbCr (33003) leaves the colours to the reader, so its stream must not transform them too.

    Raises:
        InputError: The marks contradict the directory.
    """
    if directory.samples != 3 or directory.photometric not in {RGB, YCBCR}:
        return
    if directory.compression == JPEG:
        known, told = "RGB" if directory.photometric == RGB else "YCbCr", stated_colours
    elif directory.compression == _UNTRANSFORMED:
        known, told = "RGB", transformed_colours
    else:
        return
    order = np.argsort(directory.counts, kind="stable")[:: -max(1, len(directory.counts) // _PROBED_TILES)]
    file = FileDescriptor(path)
    for number in order[:_PROBED_TILES].tolist():
        count, offset = int(directory.counts[number]), int(directory.offsets[number])
        found = told(os.pread(file.fd, min(count, _HEAD_BYTES), offset)) if count and offset else None
        if found not in {None, known}:
            raise InputError(
                f"'{path}': {_kind(directory)} {number} of {directory.name} is marked as {found}, while the "
                f"directory says {known}; one of them shows wrong colours. Convert the scanner's own file again."
            )


def missing_note(path: Path, missing: tuple[int, int], level: int) -> str:
    """Tell the share of tiles or strips that are not stored.

    Args:
        path: The file.
        missing: How many are missing, of how many in all.
        level: Number of the level.

    Raises:
        InputError: Nothing is stored.
    """
    number, total = missing
    if number == total:
        raise InputError(
            f"'{path}' holds none of its {total} tiles: the program that wrote it did not finish. "
            "Copy or convert it again."
        )
    return (
        f"{number} of {total} tiles of level {level} ({number / total:.1%}) are not stored in the file; they are white."
    )


def larger_directory(directories: Sequence[Directory], size: tuple[int, int]) -> Directory | None:
    """Return the largest image with more pixels than ``size``; label and overview pictures are passed over."""
    images = [each for each in directories if not _ASSOCIATED.search(each.description.partition("<")[0])]
    largest = max(images, key=_area, default=None)
    return largest if largest and _area(largest) > size[0] * size[1] else None


def is_stored_alike(directory: Directory, base: Directory) -> bool:
    """Return whether a reduced image is stored as the base is, so that the same reader gives its pixels."""
    names = ("is_tiled", "samples", "photometric", "extra", "is_planar", "orientation")
    is_same = all(getattr(directory, name) == getattr(base, name) for name in names)
    return is_same and not _value_problem(directory) and not _storage_problem(directory)


def _refuse_larger(path: Path, base: Directory, others: Sequence[Directory]) -> None:
    larger = larger_directory(others, base.size)
    if larger:
        place, _, below = larger.name.removeprefix("directory ").partition(".")
        page = f"page={place}" + (f",subifd={below}" if below else "")
        raise InputError(
            f"'{path}' begins with a picture of {base.width} x {base.height} pixels, while {larger.name} holds one of "
            f"{larger.width} x {larger.height}. Save that one as a file of its own: "
            f"vips copy 'IN.tif[{page}]' 'OUT.tif[tile,pyramid,compression=jpeg]'."
        )


def _refuse_stack(path: Path, base: Directory, others: Sequence[Directory]) -> None:
    same = [each for each in others if each.size == base.size and not each.is_reduced]
    found = f"holds {len(same) + 1} pictures of {base.width} x {base.height} pixels" if same else ""
    found = found or _described_stack(base)
    if found:
        raise InputError(
            f"'{path}' {found}: focal planes, channels or time points, of which one would be read. Save that one as a "
            "slide of its own."
        )


def _described_stack(base: Directory) -> str:
    """Return how many planes the description of OME or ImageJ tells of; empty for one."""
    text = base.description
    if text.startswith(_OF_IMAGEJ):
        number = max((int(each) for each in _STACK.findall(text)), default=1)
        return f"is described by ImageJ as a stack of {number} pictures" if number > 1 else ""
    if "<OME" not in text:
        return ""
    try:
        pixels = next(each for each in defusedxml.ElementTree.fromstring(text).iter() if each.tag.endswith("}Pixels"))
        channels, planes, times = (int(pixels.get(f"Size{axis}", "1")) for axis in "CZT")
    except (ParseError, defusedxml.DefusedXmlException, StopIteration, ValueError):
        return ""
    if channels <= base.samples and planes <= 1 and times <= 1:
        return ""
    return f"is described by OME as {channels} channels, {planes} focal planes and {times} time points"


def _value_problem(directory: Directory) -> str:
    bits, samples = " or ".join(map(str, sorted(set(directory.bits)))), directory.samples
    held = f"holds {samples} {'channel' if samples == 1 else 'channels'} of {bits} bits"
    if directory.depth != 1:
        return f"holds a volume of {directory.depth} planes. Save one of them as a slide of its own."
    if directory.is_tiled and directory.tile_width * directory.tile_height > MAX_SEGMENT_BYTES:
        return f"has tiles of {directory.tile_width} x {directory.tile_height} pixels. Copy or convert it again."
    if directory.sample_format in _NUMBERS:
        return f"{held} as {_NUMBERS[directory.sample_format]}, not RGB in 8. {_SAVE_RGB}."
    if directory.bits != (8,):
        return f"{held}, not RGB in 8. {_SAVE_RGB} a channel, scaled by the bits that the scanner used."
    return ""


def _colour_problem(directory: Directory) -> str:
    samples, photometric = directory.samples, directory.photometric
    colours = samples - len(directory.extra)
    if photometric in _GREYS and colours <= 1 and samples <= 2:
        return "has one grey channel: the slide has no colour. Use the scanner's colour image."
    if photometric in _GREYS:
        return (
            f"has {samples} channels that are not marked as RGB (fluorescence?): no bright-field slide. If they are "
            f"red, green and blue, save it as RGB."
        )
    if photometric == PALETTE:
        return _palette_problem(directory)
    if photometric not in {RGB, YCBCR}:
        name = _COLOURS.get(photometric, f"colours of kind {photometric}")
        return f"is stored as {name} (photometric {photometric}, {samples} channels), not as RGB. {_SAVE_RGB}."
    if samples == 4 and photometric == RGB and len(directory.extra) <= 1:
        return ""
    return "" if samples == 3 and not directory.extra else f"has {samples} channels, not RGB alone. {_SAVE_RGB}."


def _palette_problem(directory: Directory) -> str:
    number = len(directory.colour_map) // 3
    if directory.samples != 1 or len(directory.colour_map) != _PALETTE_VALUES:
        return f"has a palette of {number} colours over {directory.samples} channels. {_SAVE_RGB}."
    colours = np.reshape(directory.colour_map, (3, -1))
    if (colours == colours[0]).all():
        return "has a palette of greys: the slide has no colour. Use the scanner's colour image."
    return ""


def _storage_problem(directory: Directory) -> str:
    compression, photometric = directory.compression, directory.photometric
    is_sane = all(0 <= each <= _MAX_SHORT for _, values in directory.decoding for each in values)
    if not directory.is_whole or not is_sane:
        return f"has a damaged directory of its {_kind(directory)}s. Copy or download it again."
    if compression == OLD_JPEG:
        return f"is compressed as old-style JPEG (6), which readers decode differently. {_SAVE_RGB}."
    if photometric == YCBCR and compression not in {JPEG, *APERIO_JPEG2000}:
        return f"is stored as YCbCr in another compression than JPEG ({_name(compression)}). {_SAVE_RGB}."
    if directory.is_planar and (directory.extra or photometric != RGB or compression == JPEG):
        return f"stores its {directory.samples} channels in separate planes. {_SAVE_RGB}."
    return ""


def _refuse_undecodable(path: Path, directory: Directory) -> None:
    if directory.compression not in COMPRESSIONS:
        raise InputError(
            f"'{path}' is compressed with {_name(directory.compression)}, which is not read here. {_SAVE_RGB}."
        )
    is_divided = not directory.is_tiled and directory.compression == _UNCOMPRESSED  # into rows
    size = directory.tile_width * (1 if is_divided else directory.tile_height) * directory.samples
    if size > MAX_SEGMENT_BYTES:
        raise InputError(
            f"'{path}' is stored in {_kind(directory)}s of {size / 2**20:,.0f} MiB each. Convert it: "
            "vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg."
        )


def _needs_segments(directory: Directory) -> bool:
    """Return whether OpenSlide would show other pixels than those stored."""
    is_turned = directory.orientation != 1 and directory.compression not in _AS_STORED
    has_stray_tiles = bool(((directory.offsets == 0) & (directory.counts > 0)).any())
    is_other = directory.samples != 3 or directory.photometric == PALETTE or directory.compression == _WEBP
    return bool(is_turned or has_stray_tiles or is_other)


def _left_out(base: Directory, others: Sequence[Directory], *, is_for_openslide: bool) -> Iterator[str]:
    below = [each for each in others if "." in each.name and each.is_tiled]
    if below and is_for_openslide:
        yield f"{len(below)} smaller images in sub-directories are not used, so overviews are slow."
    for each in others:
        if not each.is_reduced and _area(each) >= _OTHER_IMAGE_SHARE * _area(base):
            yield (
                f"{each.name.capitalize()} ({each.width} x {each.height} pixels) is left out: it is not marked as a "
                "reduced image."
            )


def _is_level(directory: Directory, base: Directory) -> bool:
    return directory.is_reduced and not directory.is_macro and directory.width < base.width


def _area(directory: Directory) -> int:
    return directory.width * directory.height


def _kind(directory: Directory) -> str:
    return "tile" if directory.is_tiled else "strip"


def _name(compression: int) -> str:
    try:
        found = str(require("tifffile", why="it reads slides").COMPRESSION(compression).name)
    except ValueError:
        found = "compression"
    return f"{found} ({compression})"
