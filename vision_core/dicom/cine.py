"""Pixels of an open DICOM file, a frame at a time: memory does not grow with the length of a cine.

Source: DICOM PS3.5, 8.1.1, 8.2 and A.4.
"""

from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from vision_core.dicom.codestream import JPEG_2000_START, JPEG_START
from vision_core.dicom.header import UnfitError, is_little_endian, num_frames
from vision_core.dicom.structure import PixelElement

if TYPE_CHECKING:
    from pydicom import Dataset

_CHUNK_BYTES = 2**20
_ITEM_BYTES = 8  # of the tag and the length of an item
_STARTS = (JPEG_START, JPEG_2000_START, b"\0\0\0\x0cjP  ")  # the last of JPEG 2000 in boxes
_START_BYTES = max(map(len, _STARTS))


class FramePixels:
    """Stored bytes of the frames of a file; nothing but the frame that is asked for is read.

    Args:
        content: The open file, or its inflated content.
        header: Its header, whose number of frames has been checked.
        element: Its pixel element.
    """

    def __init__(self, content: BinaryIO, header: "Dataset", element: PixelElement) -> None:
        self.header, self.element, self._content = header, element, content

    @property
    def is_compressed(self) -> bool:
        """Whether the pixels are in pieces."""
        return self.element.num_fragments is not None

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Remark on frames that are not declared.

        Raises:
            UnfitError: Other bytes than a filling of zeros stand behind the pixels: their declared size is not theirs.
        """
        if self.is_compressed:
            return self._more_frames()
        expected, found = self._expected, self.element.num_bytes
        excess = found - expected
        if excess <= 1 or not self._has_content(expected, excess):
            return ()
        frames = num_frames(self.header)
        if excess % (expected // frames or 1) <= 1:
            return (f"holds the pixels of {found * frames // expected} frames and declares {frames}",)
        raise UnfitError(
            f"declares '{expected}' bytes of pixels and holds {found}: its size is not that of its pixels. "
            "Export it again."
        )

    @property
    def vr(self) -> str:
        """Kind of the values of ``plain``."""
        return "OB" if self._is_swapped else self.element.vr or "OW"

    def plain(self, frame: int) -> bytes:
        """Read the bytes of a frame of whole bytes."""
        size = self._expected // num_frames(self.header)
        if not self._is_swapped:
            return self._read(frame * size, size)
        first, last = frame * size // 2 * 2, -(-(frame + 1) * size // 2) * 2
        words = np.frombuffer(self._read(first, last - first), ">u2")
        return words.astype("<u2").tobytes()[frame * size - first :][:size]

    def bits(self, frame: int) -> tuple[bytes, int]:
        """Read the bytes that hold a frame of pixels of one bit, an even number, and at which bit it begins.

        Frames follow each other without a gap.
        """
        size = self.header.Rows * self.header.Columns
        first, last = frame * size, (frame + 1) * size
        start, end = first // 16 * 2, -(-last // 16) * 2
        return self._read(start, min(end, self.element.num_bytes) - start), first - 8 * start

    def compressed(self, frame: int) -> bytes:
        """Read the compressed image of a frame."""
        from pydicom.encaps import get_frame

        tables = self.header.get("ExtendedOffsetTable"), self.header.get("ExtendedOffsetTableLengths")
        frames = num_frames(self.header)
        if not all(tables) and not self.element.table_bytes and len(self.element.fragments) == frames:
            # One piece a frame: their places are known, and need no search through the file for every frame.
            start, length = self.element.fragments[frame]
            return self._read(2 * _ITEM_BYTES + start, length)  # behind the empty table and its own item
        self._content.seek(self.element.offset)
        return get_frame(
            self._content, frame, number_of_frames=frames, extended_offsets=tables if all(tables) else None
        )

    def _more_frames(self) -> tuple[str, ...]:
        """Tell of compressed frames that are not declared: every piece of RLE is one, of others those with a start."""
        from pydicom.uid import RLELossless

        declared, pieces = num_frames(self.header), list(self.element.fragments)
        if len(pieces) > declared and self.header.file_meta.TransferSyntaxUID != RLELossless:
            begin = 2 * _ITEM_BYTES + self.element.table_bytes  # behind the table, its item and that of the piece
            pieces = [each for each in pieces if self._read(begin + each[0], _START_BYTES).startswith(_STARTS)]
        found = len(pieces)
        return (f"holds the pixels of {found} frames and declares {declared}",) if found > declared else ()

    @property
    def _is_swapped(self) -> bool:
        """Whether pixels of a byte lie in words whose bytes are exchanged (PS3.5, 8.1.1 and A.3)."""
        return self.header.BitsAllocated == 8 and self.element.vr == "OW" and not is_little_endian(self.header)

    @property
    def _expected(self) -> int:
        from pydicom.pixels.utils import get_expected_length

        return get_expected_length(self.header)

    def _read(self, start: int, size: int) -> bytes:
        self._content.seek(self.element.offset + start)
        return self._content.read(size)

    def _has_content(self, start: int, size: int) -> bool:
        chunks = range(start, start + size, _CHUNK_BYTES)
        return any(any(self._read(at, min(_CHUNK_BYTES, start + size - at))) for at in chunks)
