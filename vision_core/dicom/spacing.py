"""Size of a pixel, from the region records of ultrasound, functional groups or the header; place in the patient.

Source: DICOM PS3.3, C.8.5.5 (ultrasound regions), 10.7.1.3 (pixel spacing), C.7.6.16.2.1 (pixel measures), C.7.6.2.1.1
(position and orientation).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.header import UnfitError, num_frames, numbers, spacing_header

if TYPE_CHECKING:
    from pydicom import Dataset

_CENTIMETRES, _TWO_DIMENSIONS = 3, 1
_AGREES = 0.01  # relative
_AT_DETECTOR = "ImagerPixelSpacing"
_STRAIGHT = 1e-3  # of unit vectors, which files write with few digits
_EVEN = 0.01  # of the distance of two frames


@dataclass(frozen=True, kw_only=True)
class Spacing:
    """Size of a pixel, or why it is not known.

    Attributes:
        mm: Height and width; None where it is not known.
        reason: Why not, the rest of a sentence that begins with the file's name; empty where it is known.
    """

    mm: tuple[float, float] | None
    reason: str = ""


def read_spacing(header: "Dataset", frame: int = 0) -> Spacing:
    """Read the size of a pixel; one that is not certain is not known.

    Regions count only if they are of two dimensions in centimetres and lie inside the image: many files have regions of
    another matrix, from before they were resized. The spacing at a detector is none of the patient, also where it was
    copied into that of the patient.

    Args:
        header: Header of the file.
        frame: Number of the frame, for spacings that an enhanced file keeps per frame.
    """
    records = list(header.get("SequenceOfUltrasoundRegions") or ())
    sizes = [size for record in records if (size := _size_of(record, header)) is not None]
    try:
        stated, at_detector = numbers(spacing_header(header, frame), "PixelSpacing"), numbers(header, _AT_DETECTOR)
    except UnfitError:
        stated, at_detector = [], []
    if len(stated) == 2 and stated != at_detector:
        sizes.append((stated[0], stated[1]))
    if not sizes:
        told = f"has '{len(records)}' regions, none inside the image with a size" if records else "states no spacing"
        return Spacing(mm=None, reason=f"{told}; sizes are in pixels")
    values = [each for size in sizes for each in size]
    if not all(math.isfinite(each) and each > 0 for each in values):
        return Spacing(mm=None, reason="states a spacing that is no positive number; sizes are in pixels")
    if max(values) > (1 + _AGREES) * min(values):
        kind = "spacings that disagree" if len(sizes) > 1 else "pixels that are no squares"
        return Spacing(mm=None, reason=f"has {kind} ('{min(values):g}' and '{max(values):g}' mm); sizes are in pixels")
    return Spacing(mm=sizes[0])


def cine_spacing(header: "Dataset") -> Spacing:
    """Read the size of a pixel of all frames, as ``read_spacing``; it is not known where it differs between them."""
    first = read_spacing(header)
    groups = header.get("PerFrameFunctionalGroupsSequence") or ()
    if first.mm is None:
        return first
    for frame in range(1, len(groups)):
        other = read_spacing(header, frame)
        if other.mm is None:
            return other
        if not math.isclose(first.mm[0], other.mm[0], rel_tol=_AGREES):
            told = f"has frames with spacings that disagree ('{first.mm[0]:g}' and '{other.mm[0]:g}' mm)"
            return Spacing(mm=None, reason=f"{told}; sizes are in pixels")
    return first


def pixel_ratio(header: "Dataset") -> tuple[float, float] | None:
    """Read height and width of pixels that are no squares, in any unit; None where they are, or nothing tells.

    The ratio of a detector's spacing is that of the picture, whatever its scale.

    Raises:
        UnfitError: As ``numbers``.
    """
    places = [(header, "PixelAspectRatio"), (spacing_header(header, 0), "PixelSpacing"), (header, _AT_DETECTOR)]
    for place, name in places:
        sides = numbers(place, name)
        if len(sides) == 2 and all(math.isfinite(each) and each > 0 for each in sides):
            return (sides[0], sides[1]) if max(sides) > (1 + _AGREES) * min(sides) else None
    return None


def frame_places(header: "Dataset") -> NDArray[np.float64] | None:
    """Read where the frames lie in the patient.

    Returns:
        ``(F, 4, 4)``: takes column, row, 0 and 1 of a pixel to mm in DICOM's axes (left, posterior, superior; Equation
        C.7.6.2.1-1). None without a frame of reference, or where position, orientation or spacing of a frame are
        missing or unsound.
    """
    if not header.get("FrameOfReferenceUID"):
        return None
    try:
        count = num_frames(header)
        groups = list(header.get("PerFrameFunctionalGroupsSequence") or ())
        if count > 1 and len(groups) != count:
            return None
        found = [_place(header, groups[frame] if groups else None, frame) for frame in range(count)]
    except (UnfitError, AttributeError, IndexError, TypeError):
        return None
    places = [each for each in found if each is not None]
    return np.stack(places) if len(places) == count else None


def stack_place(header: "Dataset") -> NDArray[np.float64] | None:
    """Read where the stack of all frames lies in the patient.

    Returns:
        ``(4, 4)``: takes column, row, frame and 1 to mm as ``frame_places``. None where a frame has no place, or they
        are no even stack. The step of a single frame is its thickness, 1 mm where that is not known.
    """
    places = frame_places(header)
    if places is None:
        return None
    stack, origins = places[0].copy(), places[:, :3, 3]
    if len(places) == 1:
        measures = spacing_header(header, 0)
        try:
            thickness = numbers(measures, "SliceThickness") or numbers(header, "SliceThickness")
        except UnfitError:
            thickness = []
        across = np.cross(stack[:3, 0], stack[:3, 1])
        step = across / np.linalg.norm(across) * (thickness[0] if thickness and 0 < thickness[0] < math.inf else 1.0)
    else:
        step = (origins[-1] - origins[0]) / (len(places) - 1)
        even = origins[0] + np.arange(len(places))[:, None] * step
        length = np.linalg.norm(step)
        is_even = length > 0 and np.abs(origins - even).max() <= _EVEN * length
        if not is_even or not np.allclose(places[:, :3, :2], stack[:3, :2], atol=_STRAIGHT):
            return None
    stack[:3, 2] = step
    return stack if abs(np.linalg.det(stack)) > 0 else None


def _place(header: "Dataset", group: "Dataset | None", frame: int) -> NDArray[np.float64] | None:
    """Read where a frame lies; its functional groups come before the shared ones and those before the header."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    position = _values(header, (group, shared), "PlanePositionSequence", "ImagePositionPatient", 3)
    cosines = _values(header, (group, shared), "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = numbers(spacing_header(header, frame), "PixelSpacing")
    if position is None or cosines is None or len(spacing) != 2:
        return None
    along_row, along_column = cosines[:3], cosines[3:]
    lengths = np.array([along_row @ along_row, along_column @ along_column, 1 + along_row @ along_column])
    is_sound = np.isfinite(position).all() and all(0 < each < math.inf for each in spacing)
    if not is_sound or not (np.abs(lengths - 1) <= _STRAIGHT).all():  # NaN is not
        return None
    place = np.eye(4)
    place[:3, 0], place[:3, 1], place[:3, 3] = along_row * spacing[1], along_column * spacing[0], position
    return place


def _values(
    header: "Dataset", groups: "tuple[Dataset | None, ...]", sequence: str, name: str, count: int
) -> NDArray[np.float64] | None:
    items = [group.get(sequence) for group in groups if group is not None]
    held = next((each[0] for each in items if each), header)
    found = np.array(numbers(held, name))
    return found if len(found) == count else None


def _size_of(record: Any, header: "Dataset") -> tuple[float, float] | None:  # noqa: ANN401 (an item of a sequence)
    """Return height and width of a pixel in mm of a region that can be trusted."""
    try:
        corners = [int(record[name].value) for name in ("RegionLocationMinX0", "RegionLocationMinY0",
                                                        "RegionLocationMaxX1", "RegionLocationMaxY1")]  # fmt: skip
        units = {int(record[name].value) for name in ("PhysicalUnitsXDirection", "PhysicalUnitsYDirection")}
        is_plane = int(record["RegionSpatialFormat"].value) == _TWO_DIMENSIONS
        across, down = (abs(float(record[name].value)) for name in ("PhysicalDeltaX", "PhysicalDeltaY"))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    left, top, right, bottom = corners
    is_inside = 0 <= left < right <= int(header.Columns) and 0 <= top < bottom <= int(header.Rows)
    return (10 * down, 10 * across) if is_plane and is_inside and units == {_CENTIMETRES} else None
