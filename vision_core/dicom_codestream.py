"""The shape that a compressed frame gives itself, which a decoder allocates whatever the DICOM header says.

Source: ITU-T T.81 (JPEG), B.2.2; T.87 (JPEG-LS), C.2.2; T.800 (JPEG 2000), A.5.1.
"""

import struct

_JPEG_START = b"\xff\xd8"
_JPEG2000_START = b"\xff\x4f\xff\x51"  # start of codestream and size, always in this order
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_COMPONENTS_AT = 40  # after image size, tile size and their offsets
_SEARCHED_BYTES = 2**16


def codestream_shape(frame: bytes) -> tuple[int, int, int] | None:
    """``(height, width, components)`` of a JPEG, JPEG-LS or JPEG 2000 stream; None if it is none."""
    if frame.startswith(_JPEG_START):
        return _jpeg_shape(frame)
    at = frame.find(_JPEG2000_START, 0, _SEARCHED_BYTES)  # a file of its own wraps the stream in boxes
    if at < 0 or len(frame) < at + _COMPONENTS_AT + 2:
        return None
    right, bottom, left, top = struct.unpack_from(">4L", frame, at + 8)
    (components,) = struct.unpack_from(">H", frame, at + _COMPONENTS_AT)
    return bottom - top, right - left, components


def _jpeg_shape(frame: bytes) -> tuple[int, int, int] | None:
    at = len(_JPEG_START)
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _FRAME_MARKERS:
            height, width, components = struct.unpack_from(">HHB", frame, at + 5)
            return height, width, components
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
