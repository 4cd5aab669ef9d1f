"""What a viewer needs beyond a picture: values for window and level, spacing, what the image is of.

Source: DICOM PS3.3, C.11.2.1.2 (windows).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.display import GreyDisplay, Window, padding_of, read_grey_display
from vision_core.dicom.header import frame_header, numbers, stored_bits
from vision_core.dicom.spacing import read_spacing

if TYPE_CHECKING:
    from pydicom import Dataset

    from vision_core.dicom.decoding import Stored

_LEVELS = 2**16
_SCREEN_BITS = 8
_UM_PER_MM = 1e3
_MODALITY_PRESETS = {  # of Hounsfield units: usual windows of radiology
    "CT": (("Brain", 40.0, 80.0), ("Soft tissue", 40.0, 400.0), ("Lung", -600.0, 1500.0), ("Bone", 300.0, 1500.0)),
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Window of the kind ``LINEAR``, with a name for people."""

    name: str
    centre: float
    width: float


@dataclass(frozen=True, kw_only=True)
class GreyValues:
    """Modality values of an image with more than 8 bits.

    Attributes:
        codes: ``(H, W)`` uint16; the value of a pixel is ``lowest + step * code``.
        is_image: ``(H, W)`` bool; False where the pixel is padding, and black in every window.
        lowest: Value of the code 0.
        step: Difference between codes; negative where values fall as what is stored grows.
        presets: Windows; the first is what the picture was made with.
        is_inverted: Whether small values are white.
    """

    codes: NDArray[np.uint16]
    is_image: NDArray[np.bool_]
    lowest: float
    step: float
    presets: tuple[Preset, ...]
    is_inverted: bool


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What an image is of, fit for a page: no name, number or date of a person.

    Attributes:
        um_per_px: Microns per pixel in both directions; None where it is unknown, or pixels are no squares.
        description: Modality and description of the series; empty without.
        may_name: Whether its pixels may hold text that names a person.
    """

    um_per_px: float | None = None
    description: str = ""
    may_name: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageView:
    """An image as a viewer shows it.

    Attributes:
        pixels: ``(H, W, 3)`` uint8, RGB.
        values: Values for window and level; None where there are none beyond the pixels.
        facts: What the image is of.
    """

    pixels: NDArray[np.uint8]
    values: GreyValues | None = None
    facts: ImageFacts = ImageFacts()


def read_facts(header: "Dataset", frame: int) -> ImageFacts:
    """Read spacing and description."""
    spacing = read_spacing(header, frame).mm
    modality = str(header.get("Modality", "") or "")
    described = " ".join(str(header.get("SeriesDescription", "") or "").split())
    burned = str(header.get("BurnedInAnnotation", "") or "").strip().upper()
    return ImageFacts(
        um_per_px=spacing[0] * _UM_PER_MM if spacing else None,
        description=", ".join(filter(None, (modality, described))),
        may_name=burned == "YES" or (modality == "US" and burned != "NO"),
    )


def read_values(stored: "Stored", header: "Dataset", frame: int) -> GreyValues | None:
    """Read the values of a grey image with more than 8 bits; None for others, and where no plain window shows it.

    Raises:
        UnfitError: The header contradicts the standard.
    """
    is_grey = stored.values.ndim == 2 and str(header.PhotometricInterpretation).startswith("MONOCHROME")
    if not is_grey or (stored_bits(header) <= _SCREEN_BITS and stored.values.dtype.kind != "f"):
        return None
    display = read_grey_display(header, frame)
    is_image = ~padding_of(stored, display.padding, header)
    if not is_image.any():
        return None
    values = stored.values[is_image]
    first = _first_preset(display, values)
    if first is None:
        return None
    codes, lowest, step = _encode(display, stored.values, values)
    low, high = (display.modality_values(np.array([end]))[0] for end in (values.min(), values.max()))
    windows = [first, *_other_presets(header, frame), range_preset("Whole range", low, high)]
    windows += [Preset(name=name, centre=at, width=width) for name, at, width in _modality_presets(header)]
    known = {(preset.centre, preset.width): preset for preset in reversed(windows)}
    return GreyValues(
        codes=codes,
        is_image=is_image,
        lowest=lowest,
        step=step,
        presets=tuple(preset for preset in windows if known[preset.centre, preset.width] is preset),
        is_inverted=display.is_inverted,
    )


def _encode(display: GreyDisplay, stored: NDArray[Any], image: NDArray[Any]) -> tuple[NDArray[np.uint16], float, float]:
    """Encode values as 16 bits: exactly where they are whole numbers of that range on a straight line."""
    low, high = float(image.min()), float(image.max())
    if stored.dtype.kind in "ui" and high - low < _LEVELS and isinstance(display.modality, tuple):
        slope, intercept = display.modality
        codes = np.clip(stored.astype(np.int64) - int(low), 0, _LEVELS - 1)
        return codes.astype(np.uint16), low * slope + intercept, slope
    values = display.modality_values(stored)
    ends = display.modality_values(image)
    low, high = float(ends.min()), float(ends.max())
    step = (high - low) / (_LEVELS - 1) or 1.0
    return np.clip(np.rint((values - low) / step), 0, _LEVELS - 1).astype(np.uint16), low, step


def _first_preset(display: GreyDisplay, image: NDArray[Any]) -> Preset | None:
    """Return the window that the picture was made with, as a ``LINEAR`` one; None where there is no such window."""
    shown = display.shown
    if isinstance(shown, Window):
        if shown.function == "SIGMOID":
            return None
        is_exact = shown.function == "LINEAR_EXACT" or shown.width < 1
        return Preset(
            name="Window of the file", centre=shown.centre + 0.5 * is_exact, width=shown.width + 1.0 * is_exact
        )
    if shown is None:
        ends = display.modality_values(np.array([image.min(), image.max()]))
        return range_preset("Whole range", float(ends.min()), float(ends.max()))
    return range_preset("Range of the bits", *shown) if isinstance(shown, tuple) else None


def range_preset(name: str, low: float, high: float) -> Preset:
    """Make the window that shows ``low`` black and ``high`` white."""
    low, high = min(low, high), max(low, high)
    return Preset(name=name, centre=(low + high) / 2 + 0.5, width=high - low + 1)


def _other_presets(header: "Dataset", frame: int) -> list[Preset]:
    """Read the other windows of the file, under the names that it gives them."""
    merged = frame_header(header, frame)
    if str(merged.get("VOILUTFunction", "") or "LINEAR").strip().upper() != "LINEAR":
        return []
    pairs = list(zip(numbers(merged, "WindowCenter"), numbers(merged, "WindowWidth"), strict=False))
    told = merged.get("WindowCenterWidthExplanation")
    names = [told] if isinstance(told, str) else list(told or ())
    found = []
    for place, (centre, width) in enumerate(pairs):
        name = str(names[place]).strip() if place < len(names) else ""
        if np.isfinite([centre, width]).all() and width >= 1:
            found.append(Preset(name=name or f"Window {place + 1} of the file", centre=centre, width=width))
    return found


def _modality_presets(header: "Dataset") -> tuple[tuple[str, float, float], ...]:
    is_hounsfield = str(header.get("RescaleType", "") or "HU").strip().upper() == "HU"
    return _MODALITY_PRESETS.get(str(header.get("Modality", "")), ()) if is_hounsfield else ()
