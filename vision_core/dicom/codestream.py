"""Shape of a compressed frame by its own header, which decoders trust.

Source: ITU-T T.81 (JPEG), B.2.2; T.87 (JPEG-LS), C.2.2; T.800 (JPEG 2000), A.5.1.
"""

import struct
from collections.abc import Iterator

JPEG_START = b"\xff\xd8"
_JPEG2000_START = b"\xff\x4f\xff\x51"  # start of codestream and size, always in this order
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_SCAN = 0xDA
_PRECISION_OFFSET = 4  # behind marker and length
_PRECISIONS = range(2, 17)
_COMPONENTS_OFFSET = 40  # after image size, tile size and their offsets
_SEARCHED_BYTES = 2**16


def codestream_shape(frame: bytes) -> tuple[int, int, int] | None:
    """Read ``(height, width, components)`` of a JPEG, JPEG-LS or JPEG 2000 stream; None for others."""
    if frame.startswith(JPEG_START):
        return _jpeg_shape(frame)
    at = frame.find(_JPEG2000_START, 0, _SEARCHED_BYTES)  # a JPEG 2000 file wraps the stream in boxes
    if at < 0 or len(frame) < at + _COMPONENTS_OFFSET + 2:
        return None
    right, bottom, left, top = struct.unpack_from(">4L", frame, at + 8)
    (components,) = struct.unpack_from(">H", frame, at + _COMPONENTS_OFFSET)
    return bottom - top, right - left, components


def is_sound_jpeg_header(frame: bytes) -> bool:
    """Check segments and precision of a JPEG or JPEG-LS stream."""
    frames = [at for marker, at in _segments(frame) if marker in _FRAME_MARKERS]
    scans = [at for marker, at in _segments(frame) if marker == _SCAN]
    return len(frames) == 1 and len(scans) == 1 and frame[frames[0] + _PRECISION_OFFSET] in _PRECISIONS


def _jpeg_shape(frame: bytes) -> tuple[int, int, int] | None:
    for marker, at in _segments(frame):
        if marker in _FRAME_MARKERS and at + 10 <= len(frame):
            height, width, components = struct.unpack_from(">HHB", frame, at + 5)
            return height, width, components
    return None


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
