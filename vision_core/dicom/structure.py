"""Structure of a DICOM file, read without its values: depth of sequences, end of elements, length of pixels.

Decoders find such faults late: after they have allocated what a header declares, or by exhausting the stack.
Source: DICOM PS3.5, sections 7.1, 7.5 and A.4.
"""

import struct
import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from vision_core.errors import InputError

MAX_DEPTH = 64

_PREAMBLE_BYTES = 132
_META_GROUP = b"\2\0"
_UNDEFINED = 0xFFFFFFFF
_PIXEL_TAGS = {0x7FE00008, 0x7FE00009, 0x7FE00010}  # Float, Double Float, Pixel Data
_ITEM_BYTES = 8  # of the tag and the length of an item
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}

_MAX_INFLATED_BYTES = 2**28


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Encoding of the elements of a file."""

    is_implicit: bool
    is_little_endian: bool


@dataclass(frozen=True, kw_only=True)
class PixelElement:
    """Pixel element of a file, unread.

    Attributes:
        tag: Pixel Data, Float or Double Float Pixel Data.
        num_bytes: Length of its value; for compressed pixels, of all fragments together.
        num_fragments: Fragments of compressed pixels without the offset table; None where they are not compressed.
        vr: Kind of its value; empty where the file does not say.
        offset: Where its value begins, in bytes.
        fragments: Start, behind the offset table, and length of each fragment.
        table_bytes: Length of the offset table of compressed pixels.
    """

    tag: int
    num_bytes: int
    num_fragments: int | None
    vr: str
    offset: int
    fragments: tuple[tuple[int, int], ...] = ()
    table_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class _Element:
    tag: int
    vr: bytes
    length: int
    offset: int  # of its value


@dataclass(frozen=True, kw_only=True)
class _OpenSequence:
    """Sequence or item that is being read; ``end`` is None where a delimiter ends it."""

    end: int | None
    is_sequence: bool
    encoding: Encoding


def data_set_offset(file: BinaryIO, path: Path) -> int:
    """Find the data set behind preamble and elements of group 2.

    Raises:
        InputError: An element reaches beyond the file.
    """
    elements = _ElementReader(file, path, Encoding(is_implicit=False, is_little_endian=True))
    file.seek(_PREAMBLE_BYTES)
    end = _PREAMBLE_BYTES
    while file.read(2) == _META_GROUP:
        file.seek(end)
        elements.next_element()
        end = file.tell()
    return end


def find_pixels(file: BinaryIO, path: Path, start: int, encoding: Encoding) -> PixelElement | None:
    """Find the top-level pixel element behind ``start``; None where there is none.

    Args:
        file: The file, or its inflated content.
        path: Name of the file, for messages.
        start: Offset of the first element of the data set.
        encoding: Declared encoding of the data set.

    Raises:
        InputError: Sequences nest too deeply, or a length reaches beyond the file or is missing.
    """
    file.seek(start)
    first = file.read(6)[4:]
    # Some writers declare the other kind of value representation; as other readers do, trust the first element.
    elements = _ElementReader(file, path, replace(encoding, is_implicit=not (first.isalpha() and first.isupper())))
    file.seek(start)
    while (element := elements.next_element()) is not None:
        if element.tag in _PIXEL_TAGS and not elements.open:
            return elements.pixels(element)
    return None


class _ElementReader:
    """Reader of elements, with a stack of open sequences and items."""

    def __init__(self, file: BinaryIO, path: Path, encoding: Encoding) -> None:
        self._file, self._path, self._encoding = file, path, encoding
        at = file.tell()
        self._size = file.seek(0, 2)
        file.seek(at)
        self.open: list[_OpenSequence] = []

    def next_element(self) -> _Element | None:
        """Read the next element that is no sequence and skip its value; None at the end of the file."""
        while (element := self._read_header()) is not None:
            if element.tag in {_ITEM, _ITEM_END, _SEQUENCE_END}:
                self._enter_or_leave(element)
            elif self._is_sequence(element):
                self._enter(element, is_sequence=True)
            else:
                self._skip_value(element)
                return element
        if any(each.end is None for each in self.open):
            raise InputError(f"'{self._path}' breaks off inside a sequence, at byte '{self._size}'. Copy it again.")
        return None

    def pixels(self, element: _Element) -> PixelElement:
        """Build the record of the pixel element that was read last."""
        vr = element.vr.decode("ascii")
        if element.length != _UNDEFINED:
            return PixelElement(
                tag=element.tag, num_bytes=element.length, num_fragments=None, vr=vr, offset=element.offset
            )
        lengths = self._fragments(element.offset)
        starts = accumulate(lengths[1:], lambda start, length: start + _ITEM_BYTES + length, initial=0)
        fragments = tuple(zip(starts, lengths[1:], strict=False))
        return PixelElement(
            tag=element.tag,
            num_bytes=sum(lengths[1:]),
            num_fragments=len(fragments),
            vr=vr,
            offset=element.offset,
            fragments=fragments,
            table_bytes=sum(lengths[:1]),
        )

    def _read_header(self) -> _Element | None:
        while self.open and self.open[-1].end is not None and self._file.tell() >= self.open[-1].end:
            self.open.pop()
        encoding = self.open[-1].encoding if self.open else self._encoding
        order = "<" if encoding.is_little_endian else ">"
        start = self._file.read(8)
        if len(start) < 8:
            return None
        group, number, length = struct.unpack(f"{order}HHL", start)
        tag, vr = group << 16 | number, start[4:6]
        if group == 0xFFFE or encoding.is_implicit or not (vr.isalpha() and vr.isupper()):
            return _Element(tag=tag, vr=b"", length=length, offset=self._file.tell())
        if vr not in _LONG:
            return _Element(tag=tag, vr=vr, length=struct.unpack(f"{order}H", start[6:])[0], offset=self._file.tell())
        rest = self._file.read(4)
        if len(rest) < 4:
            return None
        return _Element(tag=tag, vr=vr, length=struct.unpack(f"{order}L", rest)[0], offset=self._file.tell())

    def _is_sequence(self, element: _Element) -> bool:
        if element.tag in _PIXEL_TAGS:
            return False
        if element.length == _UNDEFINED:
            return element.vr in {b"", b"SQ", b"UN"}
        return element.vr == b"SQ" or (not element.vr and _is_sequence_by_dictionary(element.tag))

    def _enter_or_leave(self, element: _Element) -> None:
        if not self.open:
            return  # a stray delimiter, which readers ignore
        is_in_sequence = self.open[-1].is_sequence
        if element.tag == _ITEM and is_in_sequence:
            self._enter(element, is_sequence=False)
        elif element.tag == (_SEQUENCE_END if is_in_sequence else _ITEM_END):
            self.open.pop()

    def _enter(self, element: _Element, *, is_sequence: bool) -> None:
        encoding = self.open[-1].encoding if self.open else self._encoding
        if element.vr == b"UN":  # a sequence of unknown kind is written as in implicit little endian
            encoding = Encoding(is_implicit=True, is_little_endian=True)
        end = None if element.length == _UNDEFINED else self._end(element)
        self.open.append(_OpenSequence(end=end, is_sequence=is_sequence, encoding=encoding))
        if sum(each.is_sequence for each in self.open) > MAX_DEPTH:
            raise InputError(f"'{self._path}' is refused: sequence depth >{MAX_DEPTH}. Real images nest a few levels.")

    def _skip_value(self, element: _Element) -> None:
        if element.length != _UNDEFINED:
            self._file.seek(self._end(element))
        elif element.tag in _PIXEL_TAGS:
            self._fragments(element.offset)
        else:
            raise InputError(
                f"'{self._path}' is damaged: {_tag_name(element.tag)} has no length. Copy or export it again."
            )

    def _end(self, element: _Element) -> int:
        end = element.offset + element.length
        if end > self._size:
            left = self._size - element.offset
            raise InputError(
                f"'{self._path}' is damaged or cut off: {_tag_name(element.tag)} claims '{element.length}' bytes, "
                f"{left} are left in the file. Copy or export it again."
            )
        return end

    def _fragments(self, start: int) -> list[int]:
        """Read the lengths of offset table and fragments of compressed pixels."""
        self._file.seek(start)
        lengths: list[int] = []
        while len(header := self._file.read(8)) == 8:
            group, number, length = struct.unpack("<HHL", header)  # compressed pixels are always little endian
            if group << 16 | number != _ITEM:
                return lengths
            item = _Element(tag=_ITEM, vr=b"", length=length, offset=self._file.tell())
            self._file.seek(self._end(item))
            lengths.append(length)
        return lengths


def _is_sequence_by_dictionary(tag: int) -> bool:
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    return dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"


def _tag_name(tag: int) -> str:
    number = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    names = {0x7FE00010: "pixel data", 0x7FE00008: "pixel data", 0x7FE00009: "pixel data", _ITEM: "an item"}
    return f"{names.get(tag, 'element')} {number}"


def read_encoding(path: Path) -> tuple[Encoding, bool]:
    """Read the encoding of the data set, and whether it is deflated."""
    from pydicom.filereader import read_file_meta_info

    try:
        syntax = read_file_meta_info(path).TransferSyntaxUID
        encoding = Encoding(is_implicit=syntax.is_implicit_VR, is_little_endian=syntax.is_little_endian)
        return encoding, bool(syntax.is_deflated)
    except Exception as error:  # readers meet a damaged file with any exception
        reraise_disk_error(error)
        raise InputError(f"'{path}' is damaged: it declares no known transfer syntax. Export it again.") from error


def inflate(path: Path, file: BinaryIO, start: int) -> BinaryIO:
    """Inflate the data set of a deflated file, up to 256 MiB."""
    file.seek(start)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = stream.decompress(file.read(_MAX_INFLATED_BYTES), _MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise InputError(
            f"'{path}' is damaged: its deflated content cannot be read. Copy or export it again."
        ) from error
    if stream.unconsumed_tail or not stream.eof:
        raise InputError(
            f"'{path}' is refused: its deflated content is cut off, or larger than "
            f"'{_MAX_INFLATED_BYTES >> 20}' MiB. Export it without deflation."
        )
    return BytesIO(content)


def reraise_disk_error(error: Exception) -> None:
    """Raise an error of the disk or share again, unchanged: trying again may help."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
