"""Size of a pixel, from the region records of ultrasound, from functional groups, or from the header.

Source: DICOM PS3.3, C.8.5.5 (ultrasound regions), 10.7.1.3 (pixel spacing), C.7.6.16.2.1 (pixel measures).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vision_core.dicom.header import UnfitError, numbers, spacing_header

if TYPE_CHECKING:
    from pydicom import Dataset

_CENTIMETRES, _TWO_DIMENSIONS = 3, 1
_AGREES = 0.01  # relative
_AT_DETECTOR = "ImagerPixelSpacing"


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
