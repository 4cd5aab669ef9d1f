"""Elements of a DICOM header that many files hold in unusual ways: numbers, frames, functional groups."""

import copy
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

_DISPLAY_NAMES = (
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
)


class UnfitError(ValueError):
    """Fault of a file that prevents its reading: the rest of a sentence that begins with the file's name."""


def numbers(header: "Dataset", name: str) -> list[float]:
    """Read the numbers of an element; none where it is missing or empty.

    Raises:
        UnfitError: It holds something else.
    """
    try:
        value = header.get(name)
        if value is None or (isinstance(value, str | bytes) and not value.strip()):
            return []
        values = [value] if isinstance(value, str | bytes | int | float) else list(value)
        return [float(each) for each in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise UnfitError(f"holds no number in {name}. Export it again.") from error


def number(header: "Dataset", name: str) -> float | None:
    """Read the only number of an element; None where it is missing or empty.

    Raises:
        UnfitError: It holds several, or something else.
    """
    found = numbers(header, name)
    if len(found) > 1:
        raise UnfitError(f"holds '{len(found)}' numbers in {name}; one is expected. Export it again.")
    return found[0] if found else None


def whole_number(header: "Dataset", name: str, default: int) -> int:
    """Read a whole number, ``default`` where it is missing or empty; raises as ``number``."""
    found = number(header, name)
    if found is None:
        return default
    if not np.isfinite(found) or found % 1:
        raise UnfitError(f"holds '{found:g}' in {name}; a whole number is expected. Export it again.")
    return int(found)


def num_frames(header: "Dataset") -> int:
    """Read the number of frames; 1 where none is declared, or 0.

    Raises:
        UnfitError: It is no whole number.
    """
    return whole_number(header, "NumberOfFrames", 1) or 1


def frame_times(header: "Dataset") -> tuple[float, ...] | None:
    """Read when each frame begins, in ms from the first; None where the file does not say so for every frame.

    Increments of each frame (FrameTimeVector) come before one for all (FrameTime). A rate for display alone, which
    says nothing of the recording, is not taken. Source: DICOM PS3.3, C.7.6.5.
    """
    count = num_frames(header)
    try:
        increments, single = numbers(header, "FrameTimeVector"), numbers(header, "FrameTime")
    except UnfitError:
        return None
    if not increments and len(single) == 1:
        increments = [0.0, *single * (count - 1)]
    if len(increments) != count or not (np.isfinite(increments).all() and min(increments) >= 0):
        return None
    return tuple(float(each) for each in np.cumsum(increments) - increments[0])


def stored_bits(header: "Dataset") -> int:
    """Read the number of bits of a pixel's value."""
    return whole_number(header, "BitsStored", 0) or whole_number(header, "BitsAllocated", 0)


def is_signed(header: "Dataset") -> bool:
    """Tell whether stored values have a sign."""
    return whole_number(header, "PixelRepresentation", 0) == 1


def is_little_endian(header: "Dataset") -> bool:
    """Tell the order of bytes in the file."""
    return bool(header.file_meta.TransferSyntaxUID.is_little_endian)


def frame_header(header: "Dataset", frame: int) -> "Dataset":
    """Copy a frame's display values from functional groups into the header.

    Raises:
        UnfitError: There are display values of frames, and not as many as frames.
    """
    merged = copy.copy(header)
    shared, groups = header.get("SharedFunctionalGroupsSequence"), header.get("PerFrameFunctionalGroupsSequence") or ()
    for element in _display_values(shared[0]) if shared else ():
        merged[element.tag] = element
    if len(groups) == num_frames(header):
        for element in _display_values(groups[frame]):
            merged[element.tag] = element
    elif any(_display_values(group) for group in groups):
        raise UnfitError(
            f"declares '{num_frames(header)}' frames and holds the display values of {len(groups)}. Export it again."
        )
    return merged


def spacing_header(header: "Dataset", frame: int) -> "Dataset":
    """Return the data set that holds the spacing of a frame: functional groups come before the header."""
    groups = header.get("PerFrameFunctionalGroupsSequence") or ()
    of_frame = [groups[frame]] if frame < len(groups) else []
    for group in (*of_frame, *(header.get("SharedFunctionalGroupsSequence") or ())[:1]):
        if measures := group.get("PixelMeasuresSequence"):
            found: Dataset = measures[0]
            return found
    return header


def _display_values(group: "Dataset") -> "list[DataElement]":
    sequences = (element for element in group if element.VR == "SQ" and element.value)
    return [each for sequence in sequences for each in sequence.value[0] if each.keyword in _DISPLAY_NAMES]
