"""What the headers of a DICOM slide say of its pixels: refused, or told, before OpenSlide reads it.

OpenSlide ends the process on a sparse slide without the positions of its frames, and shows one whose positions are
empty as white. Source: DICOM PS3.3, sections A.32.8, C.7.6.17 and C.8.12.4.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from vision_core.errors import InputError
from vision_core.optional import require
from vision_core.slides.reading.jpeg_tiles import stated_colours, transformed_colours

_WHY = "it checks DICOM slides before they are read"
_SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
_MARK_PLACE, _MARK = 128, b"DICM"
_SERIES = ("SOPClassUID", "SeriesInstanceUID", "ImageType")
_MAX_FILES, _MAX_POSITIONS = 4000, 20_000  # beyond, headers are not looked into: it would take minutes
_PIXEL_DATA, _ITEM = b"\xe0\x7f\x10\x00", b"\xfe\xff\x00\xe0"
_PROBED_FRAMES, _HEAD_BYTES = 3, 2**16
_CODING_STYLE, _TRANSFORM = (
    b"\xff\x52",
    8,
)  # of JPEG 2000: its marker, and where it says whether colours are transformed
_BASELINE = "1.2.840.10008.1.2.4.50"
_JPEG2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
_COLOURS = {  # transfer syntaxes: photometric interpretations that fit
    _BASELINE: {"RGB", "YBR_FULL_422", "YBR_FULL"},
    "1.2.840.10008.1.2.4.90": {"RGB", "YBR_RCT"},
    "1.2.840.10008.1.2.4.91": {"RGB", "YBR_RCT", "YBR_ICT"},
    "1.2.840.10008.1.2": {"RGB"},
    "1.2.840.10008.1.2.1": {"RGB"},
}
_LOG = logging.getLogger("domainsight")
# pydicom raises any of these on a damaged header, depending on the element.
_PARSE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, NotImplementedError, EOFError)
_Header = Any  # of pydicom
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class DicomSlide:
    """What the headers of a slide's instances say.

    Attributes:
        missing: Frames that are not stored, and tiles in all, by size ``(width, height)`` of the level.
        extents: Pixel spacing times pixels in millimetres, width and height, by size of the level.
        properties: Of the finest level, for the resolution, under OpenSlide's names.
    """

    missing: Mapping[Size, tuple[int, int]]
    extents: Mapping[Size, tuple[float, float]]
    properties: Mapping[str, str]


def is_dicom(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of DICOM."""
    return start[_MARK_PLACE : _MARK_PLACE + len(_MARK)] == _MARK


def check_dicom(path: Path) -> DicomSlide | None:
    """Check the levels of a DICOM slide: all images of its series in the folder.

    Returns:
        Their missing frames; None where the file is no slide.

    Raises:
        InputError: A level cannot be read as it is meant, or no frame of the finest is stored.
        OSError: The disk or share failed.
    """
    own = _read_header(path)
    if own is None or own.get("SOPClassUID") != _SLIDE_CLASS:
        return None
    found = {path: own} if _is_level(own) else {}
    for file in _siblings(path, str(own.get("SeriesInstanceUID", ""))):
        header = _read_header(file)
        if header is not None and _is_level(header):
            found[file] = header
    missing, extents = {}, {}
    for file, header in found.items():
        try:
            size = int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)
            problem = _problem(file, header)
            missing[size] = _missing_frames(header) if not problem else (0, 0)
            if (spacing := _spacing(header)) is not None:
                extents[size] = (spacing[1] * size[0], spacing[0] * size[1])
        except _PARSE_ERRORS:  # not told in its own words, which may hold values of the header
            _LOG.debug("'%s': a header that cannot be read", file, exc_info=True)
            problem = "has a header that cannot be read"
        if problem:
            whose = f"'{path}'" if file == path else f"'{path}': its level '{file.name}'"
            raise InputError(f"{whose} {problem}. Export it from the scanner's software again.")
    finest = max(found.values(), key=lambda header: int(header.TotalPixelMatrixColumns), default=None)
    properties = _volume_properties(finest) if finest is not None else {}
    return DicomSlide(missing=missing, extents=extents, properties=properties)


def _is_level(header: _Header) -> bool:
    kinds = [str(each).upper() for each in header.get("ImageType", [])]
    return header.get("SOPClassUID") == _SLIDE_CLASS and not {"LABEL", "OVERVIEW", "THUMBNAIL"} & set(kinds)


def _siblings(path: Path, series: str) -> Iterator[Path]:
    """List the other files of a series in the folder; its number stands near the start of each."""
    for file in islice(path.parent.iterdir(), _MAX_FILES):
        try:
            if file == path or not file.is_file():
                continue
            with file.open("rb") as opened:
                start = opened.read(_HEAD_BYTES)
        except OSError:
            continue
        if series and is_dicom(start) and series.encode() in start:
            header = _read_header(file, _SERIES)
            if header is not None and header.get("SeriesInstanceUID") == series:
                yield file


def _read_header(path: Path, names: tuple[str, ...] | None = None) -> _Header | None:
    pydicom = require("pydicom", why=_WHY)
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(names) if names else None)
    except (pydicom.errors.InvalidDicomError, *_PARSE_ERRORS):
        _LOG.debug("'%s': a header that cannot be read", path, exc_info=True)
        return None


def _problem(path: Path, header: _Header) -> str:
    return (
        _format_problem(header) or _planes_problem(header) or _position_problem(header) or _mark_problem(path, header)
    )


def _format_problem(header: _Header) -> str:
    samples, bits, stored = (int(header[name].value) for name in ("SamplesPerPixel", "BitsAllocated", "BitsStored"))
    photometric = str(header.PhotometricInterpretation)
    if samples == 1 or photometric.startswith("MONOCHROME"):
        return "has one grey channel: the slide has no colour"
    if samples != 3 or bits != 8 or stored != 8 or int(header.get("PixelRepresentation", 0)):
        kind = "signed " if int(header.get("PixelRepresentation", 0)) else ""
        return f"holds {samples} channels of {stored} {kind}bits in {bits}, not RGB of 8 bits"
    syntax = header.file_meta.TransferSyntaxUID
    fitting = _COLOURS.get(str(syntax))
    if fitting is not None and photometric not in fitting:
        return f"is stored as {photometric}, which does not fit its transfer syntax '{syntax.name}'"
    return ""


def _planes_problem(header: _Header) -> str:
    for name, told in (("TotalPixelMatrixFocalPlanes", "focal planes"), ("NumberOfOpticalPaths", "optical paths")):
        number = int(header.get(name) or 1)
        if number > 1:
            return f"holds {number} {told}, of which one would be read"
    return ""


def _position_problem(header: _Header) -> str:
    """Return what is wrong with the number of frames, or with the positions of those that do not come in order."""
    frames, items = int(header.get("NumberOfFrames", 1)), header.get("PerFrameFunctionalGroupsSequence")
    if _is_full(header):
        tiles = _num_tiles(header)
        is_part = "ConcatenationUID" in header
        return "" if frames == tiles or is_part else f"holds {frames} frames for {tiles} tiles"
    if not items:
        return f"holds {frames} frames without their positions (PerFrameFunctionalGroupsSequence)"
    if len(items) != frames:
        return f"holds {frames} frames and the positions of {len(items)}"
    if frames > _MAX_POSITIONS:
        return ""
    positions = [_position(item) for item in items]
    empty = sum(each is None for each in positions)
    if empty:
        return f"does not give the positions of {empty} of its {frames} frames (PlanePositionSlideSequence)"
    width, height = int(header.Columns), int(header.Rows)
    shifted = sum((x - 1) % width != 0 or (y - 1) % height != 0 for x, y in filter(None, positions))
    return f"holds {shifted} of {frames} frames that lie between tiles" if shifted else ""


def _position(item: _Header) -> Size | None:
    places = item.get("PlanePositionSlideSequence")
    if not places or "ColumnPositionInTotalImagePixelMatrix" not in places[0]:
        return None
    place = places[0]
    return int(place.ColumnPositionInTotalImagePixelMatrix), int(place.RowPositionInTotalImagePixelMatrix)


def _is_full(header: _Header) -> bool:
    return str(header.get("DimensionOrganizationType", "")) == "TILED_FULL"


def _num_tiles(header: _Header) -> int:
    columns = -(-int(header.TotalPixelMatrixColumns) // int(header.Columns))
    return columns * -(-int(header.TotalPixelMatrixRows) // int(header.Rows))


def _missing_frames(header: _Header) -> tuple[int, int]:
    tiles, frames = _num_tiles(header), int(header.get("NumberOfFrames", 1))
    if _is_full(header) or frames > _MAX_POSITIONS:
        return 0, tiles
    return max(0, tiles - len({_position(item) for item in header.PerFrameFunctionalGroupsSequence})), tiles


def _mark_problem(path: Path, header: _Header) -> str:
    """Return how the first compressed frames contradict the header."""
    told, known = _stated_colours(header)
    if told is None:
        return ""
    with path.open("rb") as file:
        require("pydicom", why=_WHY).dcmread(file, stop_before_pixels=True, specific_tags=list(_SERIES))
        for head in islice(_frame_heads(file), _PROBED_FRAMES):
            found = told(head)
            if found not in {None, known}:
                return (
                    f"is marked as {found} in its frames, while the header says {header.PhotometricInterpretation}; "
                    "one of them shows wrong colours"
                )
    return ""


def _stated_colours(header: _Header) -> tuple[Callable[[bytes], str | None] | None, str]:
    """Return what reads the colours of a frame from its stream, and what it should find."""
    syntax, photometric = str(header.file_meta.TransferSyntaxUID), str(header.PhotometricInterpretation)
    if syntax == _BASELINE:
        return stated_colours, "RGB" if photometric == "RGB" else "YCbCr"
    if syntax in _JPEG2000 and photometric != "RGB":
        return transformed_colours, "YCbCr"
    return None, ""


def _frame_heads(file: BinaryIO) -> Iterator[bytes]:
    """Read the first bytes of each fragment of compressed pixels, from a file at their element."""
    head = file.read(12)
    if head[:4] != _PIXEL_DATA:
        return
    is_table = True
    while (item := file.read(8))[:4] == _ITEM:
        start, length = file.tell(), int.from_bytes(item[4:8], "little")
        if not is_table:
            yield file.read(min(length, _HEAD_BYTES))
        is_table = False
        file.seek(start + length)


def _spacing(header: _Header) -> tuple[float, float] | None:
    """Return the distances of rows and of columns in millimetres; None where they are not given for all frames."""
    shared = header.get("SharedFunctionalGroupsSequence") or [{}]
    measures = shared[0].get("PixelMeasuresSequence") or [{}]
    values = [float(each) for each in measures[0].get("PixelSpacing") or ()]
    return (values[0], values[1]) if len(values) == 2 and min(values) > 0 else None


def _volume_properties(header: _Header) -> dict[str, str]:
    names = ("ImagedVolumeWidth", "ImagedVolumeHeight", "TotalPixelMatrixColumns", "TotalPixelMatrixRows")
    return {f"dicom.{name}": str(header.get(name)) for name in names if header.get(name) is not None}
