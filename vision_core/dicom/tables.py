"""Lookup tables of DICOM: modality, display and palette tables.

Source: DICOM PS3.3, C.7.6.3.1.5, C.11.1.1 and C.11.2.1.1.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.header import UnfitError, is_little_endian

if TYPE_CHECKING:
    from pydicom import Dataset

_BITS = range(1, 17)
_BYTE = 8
_WORDS = 2**16
_COLOURS = ("Red", "Green", "Blue")


@dataclass(frozen=True, kw_only=True)
class LookupTable:
    """Table from whole numbers to others; what lies before or behind it gets its first or last entry.

    Attributes:
        first: Number of the first entry.
        entries: ``(N,)`` int64.
        bits: Bits of an entry.
    """

    first: int
    entries: NDArray[np.int64]
    bits: int

    @property
    def largest(self) -> int:
        """Largest value that an entry can have."""
        return int(2**self.bits - 1)

    def __call__(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Look up values of any shape; fractions are rounded."""
        last = self.first + len(self.entries) - 1
        found: NDArray[np.int64] = np.rint(np.clip(values, self.first, last)).astype(np.int64)
        return self.entries[found - self.first]


def read_table(item: "Dataset", header: "Dataset", *, has_sign: bool) -> LookupTable:
    """Read the table of a modality or display sequence's item.

    Args:
        item: The item.
        header: Header of the file.
        has_sign: Whether the numbers to look up can be negative, as then the first of the table.

    Raises:
        UnfitError: Descriptor and data do not fit each other.
    """
    count, first, bits = _descriptor(item.get("LUTDescriptor"), has_sign=has_sign)
    return _table(_entries(item.get("LUTData"), count, bits, header), first, bits)


def read_palette(header: "Dataset", *, has_sign: bool) -> tuple[LookupTable, LookupTable, LookupTable]:
    """Read the tables of red, green and blue.

    Raises:
        UnfitError: One is missing or malformed.
    """
    tables = []
    for place, colour in enumerate(_COLOURS):
        count, first, bits = _descriptor(header.get(f"{colour}PaletteColorLookupTableDescriptor"), has_sign=has_sign)
        data = header.get(f"{colour}PaletteColorLookupTableData")
        entries = _expanded(header, place, count, first, bits) if data is None else _entries(data, count, bits, header)
        tables.append(_table(entries, first, bits))
    return tables[0], tables[1], tables[2]


def _descriptor(value: Any, *, has_sign: bool) -> tuple[int, int, int]:  # noqa: ANN401 (numbers, or nothing)
    """Read number of entries, first number and bits; the first two may be read with the wrong sign."""
    try:
        count, first, bits = (int(each) for each in value)
    except (TypeError, ValueError) as error:
        raise UnfitError("has a table without a descriptor of three numbers. Export it again.") from error
    if bits not in _BITS:
        raise UnfitError(f"has a table of '{bits}' bits an entry; 1 to 16 can be read. Export it again.")
    first %= _WORDS
    return count % _WORDS or _WORDS, first - _WORDS if has_sign and first >= _WORDS // 2 else first, bits


def _entries(data: Any, count: int, bits: int, header: "Dataset") -> NDArray[np.int64]:  # noqa: ANN401 (bytes, numbers)
    """Read entries: one a word, or where they have 8 bits two a word."""
    order = "<" if is_little_endian(header) else ">"
    if isinstance(data, bytes):
        words = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
        rest = data[len(words) * 2 :]
    else:
        values = [] if data is None else [data] if isinstance(data, int) else list(data)
        words, rest = np.array([int(each) % _WORDS for each in values], np.uint16), b""
    if len(words) == count and not rest:
        return words.astype(np.int64)
    packed = words.astype("<u2").tobytes() + rest
    if bits <= _BYTE and len(packed) in {count, count + 1}:
        return np.frombuffer(packed, np.uint8)[:count].astype(np.int64)
    raise UnfitError(f"has a table of '{count}' entries with {len(packed)} bytes of data. Export it again.")


def _expanded(header: "Dataset", place: int, count: int, first: int, bits: int) -> NDArray[np.int64]:
    """Expand a palette in segments, as pydicom does."""
    from pydicom.pixels.processing import apply_color_lut

    if f"Segmented{_COLOURS[place]}PaletteColorLookupTableData" not in header:
        raise UnfitError(f"has no palette of {_COLOURS[place].lower()}. Export it again.")
    if bits == _BYTE and count > 2**_BYTE:  # pydicom counts these in bytes
        raise UnfitError(f"has a palette of '{count}' entries of 8 bits in segments, which cannot be read.")
    try:
        return apply_color_lut(np.arange(first, first + count), header)[:, place].astype(np.int64)
    except Exception as error:
        raise UnfitError("has a palette in segments that cannot be read. Export it again.") from error


def _table(entries: NDArray[np.int64], first: int, bits: int) -> LookupTable:
    if entries.max() >= 2**bits:
        raise UnfitError(f"has a table of '{bits}' bits an entry that holds '{entries.max()}'. Export it again.")
    return LookupTable(first=first, entries=entries, bits=bits)
