"""Facts of a compressed frame by its own header: shape, precision and colours, which decoders trust.

Source: ITU-T T.81 (JPEG), B.2.2; T.87 (JPEG-LS), C.2.2; T.800 (JPEG 2000), A.5.1 and A.6.1; T.871 (JFIF); T.872, 6.5.3.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Colours = Literal["RGB", "YBR", ""]

JPEG_START = b"\xff\xd8"
JPEG_2000_START = b"\xff\x4f\xff\x51"  # start of codestream and size, always in this order
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_SCAN, _JFIF, _ADOBE = 0xDA, 0xE0, 0xEE
_PRECISION_OFFSET = 4  # behind marker and length
_PRECISIONS = range(2, 17)
_ADOBE_BYTES = 12  # shorter ones are not Adobe's: decoders pass over them
_ADOBE_COLOURS: dict[int, Colours] = {0: "RGB", 1: "YBR"}
_RGB_NAMES = (b"RGB", b"rgb")
_COMPONENTS_OFFSET = 40  # after image size, tile size and their offsets
_CODING_STYLE, _TILE = 0xFF52, 0xFF90
_SYCC = b"colr\x01\x00\x00\x00\x00\x00\x12"  # colours of a JPEG 2000 file: sYCC
_SEARCHED_BYTES = 2**16


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Facts of a frame by its own header.

    Attributes:
        shape: ``(height, width, components)``.
        precision: Largest number of bits of a component.
        colours: Colours of what a decoder gives without converting; empty where the stream does not tell.
        is_marked: Whether ``colours`` follows from a JFIF mark alone.
        has_gaps: Whether a JPEG 2000 stream stores a component with fewer pixels: decoders convert that differently.
    """

    shape: tuple[int, int, int]
    precision: int
    colours: Colours = ""
    is_marked: bool = False
    has_gaps: bool = False


def read_stream(frame: bytes) -> Stream | None:
    """Read the facts of a JPEG, JPEG-LS or JPEG 2000 stream; None for others."""
    if frame.startswith(JPEG_START):
        return _read_jpeg(frame)
    at = jpeg_2000_start(frame)
    if at < 0 or len(frame) < at + _COMPONENTS_OFFSET + 2:
        return None
    right, bottom, left, top = struct.unpack_from(">4L", frame, at + 8)
    (components,) = struct.unpack_from(">H", frame, at + _COMPONENTS_OFFSET)
    parts = frame[at + _COMPONENTS_OFFSET + 2 :][: 3 * components]  # precision, steps to the right and down
    sizes = parts[::3]
    colours: Colours = "RGB" if _has_transform(frame, at) else "YBR" if _SYCC in frame[:at] else ""
    return Stream(
        shape=(bottom - top, right - left, components),
        precision=max(((size & 0x7F) + 1 for size in sizes), default=0),
        colours=colours,
        has_gaps=any(step != 1 for step in (*parts[1::3], *parts[2::3])),
    )


def jpeg_2000_start(frame: bytes) -> int:
    """Find the JPEG 2000 stream, which a JPEG 2000 file wraps in boxes; -1 where there is none."""
    return frame.find(JPEG_2000_START, 0, _SEARCHED_BYTES)


def is_sound_jpeg_header(frame: bytes) -> bool:
    """Check segments and precision of a JPEG or JPEG-LS stream."""
    frames = [at for marker, at in _segments(frame) if marker in _FRAME_MARKERS]
    scans = [at for marker, at in _segments(frame) if marker == _SCAN]
    return len(frames) == 1 and len(scans) == 1 and frame[frames[0] + _PRECISION_OFFSET] in _PRECISIONS


def _read_jpeg(frame: bytes) -> Stream | None:
    """Read a JPEG; its marks tell the colours, else the names of its components, else what is stored with fewer pixels.

    Red, green and blue are never stored with different numbers of pixels.
    """
    has_jfif, adobe = False, None
    for marker, at in _segments(frame):
        content = frame[at + 4 : at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")]
        if marker == _JFIF and content.startswith(b"JFIF"):
            has_jfif = True
        if marker == _ADOBE and content.startswith(b"Adobe") and len(content) >= _ADOBE_BYTES:
            adobe = content[_ADOBE_BYTES - 1]
        if marker in _FRAME_MARKERS and at + 10 <= len(frame):
            precision, height, width, components = struct.unpack_from(">BHHB", frame, at + 4)
            parts = content[6:]
            is_subsampled = len(set(parts[1::3])) > 1
            colours: Colours = ""
            if adobe is not None:
                colours = _ADOBE_COLOURS.get(adobe, "")
            elif has_jfif:
                colours = "YBR"
            elif parts[::3] in _RGB_NAMES:
                colours = "RGB"
            elif is_subsampled:
                colours = "YBR"
            is_marked = has_jfif and adobe is None and not is_subsampled
            return Stream(shape=(height, width, components), precision=precision, colours=colours, is_marked=is_marked)
    return None


def _has_transform(frame: bytes, at: int) -> bool:
    """Tell whether a JPEG 2000 stream has a colour transform of its own, which every decoder undoes."""
    at += 2
    while at + 9 <= len(frame):
        marker, length = struct.unpack_from(">HH", frame, at)
        if marker == _CODING_STYLE:
            return frame[at + 8] == 1
        if marker == _TILE:
            break
        at += 2 + length
    return False


def _segments(frame: bytes) -> Iterator[tuple[int, int]]:
    """Iterate over marker and offset of segments, to the first scan."""
    at = len(JPEG_START)
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        yield marker, at
        if marker == _SCAN:
            return
        at += 2 if marker in _WITHOUT_LENGTH else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
