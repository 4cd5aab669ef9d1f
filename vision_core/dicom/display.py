"""Conversion of stored DICOM values to 8-bit RGB: modality values, display table or window, colours.

Source: DICOM PS3.3, C.7.5.1.1.2, C.7.6.3.1, C.8.11.3.1.2, C.11.1 and C.11.2.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.header import (
    UnfitError,
    frame_header,
    is_signed,
    num_frames,
    number,
    numbers,
    stored_bits,
    whole_number,
)
from vision_core.dicom.tables import LookupTable, read_palette, read_table

if TYPE_CHECKING:
    from pydicom import Dataset

    from vision_core.dicom.decoding import Stored

_Values = NDArray[np.float64]
_SCREEN_BITS = 8
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_SHAPES = ("", "IDENTITY", "INVERSE")
_SLOPES = (1e-12, 1e12)  # between diffusion in small units and counts of a detector
_LARGEST_INTERCEPT = 1e15
_MOST_WINDOWS = 1e4
_WORD_BITS = 16
_FEW_LEVELS = 2**16
# Colour profiles (ICC) are told and not applied: networks were trained on the numbers as stored.
OTHER_PROFILE = "has a colour profile other than sRGB, which is not applied; viewers show other colours"
_SRGB_NAMES = tuple(
    encoded for name in ("sRGB", "IEC61966") for encoded in (name.encode("ascii"), name.encode("utf-16-be"))
)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Window of the standard's kinds ``LINEAR``, ``LINEAR_EXACT`` and ``SIGMOID``."""

    centre: float
    width: float
    function: str = "LINEAR"

    def __call__(self, values: _Values) -> _Values:
        """Map values to [0, 1]."""
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (values - self.centre) / self.width, -700, 700)))
        if self.function == "LINEAR_EXACT" or self.width < 1:  # of a linear one: fractions, meant exactly
            return np.clip((values - self.centre) / self.width + 0.5, 0, 1)
        if self.width == 1:
            return (values > self.centre - 0.5).astype(np.float64)
        return np.clip((values - (self.centre - 0.5)) / (self.width - 1) + 0.5, 0, 1)


@dataclass(frozen=True, kw_only=True)
class GreyDisplay:
    """Way from the stored values of a frame to shades of grey.

    Attributes:
        modality: Table, or slope and intercept.
        shown: Display table or window; else the modality values that become black and white; None: the least and
            the largest that occur.
        is_inverted: Whether small values are white.
        padding: Least and largest stored value that is no image, and becomes black.
        notes: Sentences on what the header leaves open; they begin with the file's name.
    """

    modality: LookupTable | tuple[float, float]
    shown: LookupTable | Window | tuple[float, float] | None
    is_inverted: bool
    padding: tuple[float, float] | None
    notes: tuple[str, ...]

    def modality_values(self, stored: NDArray[Any]) -> _Values:
        """Convert stored values to modality values, such as Hounsfield units."""
        if isinstance(self.modality, LookupTable):
            return self.modality(stored).astype(np.float64)
        slope, intercept = self.modality
        return np.asarray(stored, np.float64) * slope + intercept

    def shades(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        """Convert stored values of any shape, all of them image, to shades from 0 to 255."""
        values = self.modality_values(stored)
        if isinstance(self.shown, LookupTable):
            shades = _to_uint8(self.shown(values) / self.shown.largest)
        elif isinstance(self.shown, Window):
            shades = _to_uint8(self.shown(values))
        else:
            low, high = self.shown or (values.min(), values.max())
            shades = _to_uint8((values - low) / (high - low)) if high > low else np.zeros(values.shape, np.uint8)
        return 255 - shades if self.is_inverted else shades


def to_display(stored: "Stored", header: "Dataset", frame: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Convert the stored values of one frame to 8-bit RGB.

    Args:
        stored: The values, colours as RGB.
        header: Header of the file.
        frame: Number of the frame, for values that an enhanced file keeps per frame.

    Returns:
        ``(H, W, 3)`` uint8, RGB, and notes.

    Raises:
        UnfitError: Values are not finite, or display values or tables contradict the standard.
    """
    if stored.values.ndim == 3:
        return _to_uint8(stored.values / (2.0 ** stored_bits(header) - 1)), ()
    if header.PhotometricInterpretation == "PALETTE COLOR":
        colours = read_palette(header, has_sign=is_signed(header))
        return np.stack([_to_uint8(each(stored.values) / each.largest) for each in colours], axis=-1), ()
    display = read_grey_display(header, frame)
    grey, notes = _to_grey(stored, display, header)
    return np.repeat(grey[..., None], 3, axis=2), (*display.notes, *notes)


def read_grey_display(header: "Dataset", frame: int) -> GreyDisplay:
    """Read how the values of a frame are shown.

    Raises:
        UnfitError: The header contradicts the standard, so that programs show different pictures.
    """
    merged = frame_header(header, frame)
    if merged.get("PixelPresentation") in {"COLOR", "MIXED"} and "RedPaletteColorLookupTableDescriptor" in merged:
        raise UnfitError("has colours for some of its grey values, which are not shown here. Export it as RGB.")
    modality = _modality(merged)
    plain = GreyDisplay(modality=modality, shown=None, is_inverted=False, padding=_padding(header), notes=())
    shown, notes = _shown(merged, plain)
    is_inverted, told = _inversion(merged)
    return GreyDisplay(
        modality=modality, shown=shown, is_inverted=is_inverted, padding=plain.padding, notes=(*notes, *told)
    )


def padding_of(stored: "Stored", padding: tuple[float, float] | None, header: "Dataset") -> NDArray[np.bool_]:
    """Find the pixels ``(H, W)`` that are padding, by their least and largest stored value; None: there are none."""
    if padding is None:
        return np.zeros(stored.values.shape, np.bool_)
    low, high = padding
    if np.isnan(low):
        return np.asarray(np.isnan(stored.values))
    bits = stored_bits(header)
    limits = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if is_signed(header) else (0, 2**bits)
    is_among_values = stored.values.dtype.kind == "f" or (limits[0] <= low and high < limits[1])
    values = stored.values if is_among_values else stored.raw  # bits above those stored can mark padding
    return np.asarray((values >= low) & (values <= high))


def full_range(stored: "Stored", header: "Dataset", frame: int) -> NDArray[np.uint16] | None:
    """Convert grey values of 9 to 16 bits to ``(H, W)`` of 16 bits, over the range of their bits: nothing is clipped.

    No window is applied; white is the largest value that the bits hold, or the smallest where small values are white.
    Padding becomes black.

    Returns:
        The grey; None for colours, other depths, and values that go through a table.

    Raises:
        UnfitError: As ``read_grey_display``.
    """
    bits = stored_bits(header)
    is_grey = stored.values.ndim == 2 and str(header.PhotometricInterpretation).startswith("MONOCHROME")
    if not (is_grey and 8 < bits <= 16 and stored.values.dtype.kind in "iu"):
        return None
    display = read_grey_display(header, frame)
    if isinstance(display.modality, LookupTable) or isinstance(display.shown, LookupTable):
        return None
    largest = 2**bits - 1
    values = stored.values.astype(np.int64) + (2 ** (bits - 1) if is_signed(header) else 0)
    is_inverted = display.is_inverted != (display.modality[0] < 0)
    shades = np.rint((largest - values if is_inverted else values) * (65535 / largest))
    shades[padding_of(stored, display.padding, header)] = 0
    return np.asarray(shades.clip(0, 65535), np.uint16)


def _to_grey(stored: "Stored", display: GreyDisplay, header: "Dataset") -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Convert one frame ``(H, W)``; each value that occurs is converted once, since there are few."""
    is_padding = padding_of(stored, display.padding, header)
    values = stored.values[~is_padding] if is_padding.any() else stored.values
    if not values.size:
        if num_frames(header) > 1:  # black frames of a cine are no fault of the others
            return np.zeros(stored.values.shape, np.uint8), ()
        raise UnfitError("holds nothing but padding: no pixel is image. Leave it out.")
    if not np.isfinite(values).all():
        raise UnfitError("has pixels that are not finite. Export it again.")
    low, span = values.min(), float(values.max()) - float(values.min())
    if values.dtype.kind in "ui" and span < min(_FEW_LEVELS, values.size):
        places = values.astype(np.int64) - int(low)
        levels = np.flatnonzero(np.bincount(places.ravel()))
        table = np.zeros(int(span) + 1, np.uint8)
        table[levels] = display.shades(levels + int(low))
        shades = table[places]
    else:
        shades = display.shades(values)
    grey = shades
    if is_padding.any():
        grey = np.zeros(stored.values.shape, np.uint8)
        grey[~is_padding] = shades
    is_lost = isinstance(display.shown, Window) and span > 0 and shades.min() == shades.max()
    return grey, (f"shows every pixel in one grey, '{shades.min()}', by its window",) if is_lost else ()


def _modality(header: "Dataset") -> LookupTable | tuple[float, float]:
    if header.get("ModalityLUTSequence"):
        return read_table(header.ModalityLUTSequence[0], header, has_sign=is_signed(header))
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if not _SLOPES[0] <= abs(slope) <= _SLOPES[1]:  # NaN, too
        raise UnfitError(f"declares '{slope:g}' as its RescaleSlope, which leaves no picture. Export it again.")
    if not abs(intercept) <= _LARGEST_INTERCEPT:
        raise UnfitError(f"declares '{intercept:g}' as its RescaleIntercept. Export it again.")
    return slope, intercept


def _shown(
    header: "Dataset", plain: GreyDisplay
) -> tuple[LookupTable | Window | tuple[float, float] | None, tuple[str, ...]]:
    """Choose display table, window or range, and tell what was passed over."""
    bits, has_sign = stored_bits(header), is_signed(header)
    lowest, highest = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if has_sign else (0.0, 2.0**bits - 1)
    windows, notes = _windows(header)
    if tables := header.get("VOILUTSequence"):
        ends = plain.modality_values(np.array([lowest, highest]))
        told = [f"has {len(tables)} display tables; the first is used"] if len(tables) > 1 else []
        told += ["has a display table and a window; the table is used"] if windows else []
        return read_table(tables[0], header, has_sign=bool(ends.min() < 0)), tuple(told)
    if windows:
        _refuse_other_units(plain.modality, windows[0], bits)
        return windows[0], notes
    if has_sign or bits > _SCREEN_BITS:
        return None, notes
    if isinstance(plain.modality, LookupTable):
        return (0.0, float(plain.modality.largest)), notes
    ends = plain.modality_values(np.array([lowest, highest]))
    return (float(ends.min()), float(ends.max())), notes


def _refuse_other_units(modality: LookupTable | tuple[float, float], window: Window, bits: int) -> None:
    """Refuse a slope that is beyond all measure of the window: one of them is of other units."""
    if isinstance(modality, LookupTable) or bits > _WORD_BITS:  # fractions have no step
        return
    steps = abs(modality[0]) / window.width  # windows that a step of the stored values spans
    if steps > _MOST_WINDOWS or steps * 2**bits < 1 / _MOST_WINDOWS:
        raise UnfitError(
            f"declares the RescaleSlope '{modality[0]:g}' and a window of the width '{window.width:g}', which together "
            "leave no picture. Export it again."
        )


def _windows(header: "Dataset") -> tuple[list[Window], tuple[str, ...]]:
    """Read the windows that can be used, and tell of others."""
    function = str(header.get("VOILUTFunction", "") or "LINEAR").strip().upper()
    centres, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    pairs = list(zip(centres, widths, strict=False))
    if pairs and function not in _FUNCTIONS:
        raise UnfitError(f"has a window of the kind '{function}'; {', '.join(_FUNCTIONS)} are known. Export it again.")
    sound = [(centre, width) for centre, width in pairs if np.isfinite([centre, width]).all() and width > 0]
    notes = []
    if len(centres) != len(widths):
        instead = "pairs are made from the first on" if pairs else "its values are shown as if it had no window"
        notes.append(f"has {len(centres)} centres and {len(widths)} widths of windows; {instead}")
    if len(sound) < len(pairs):
        centre, width = next(pair for pair in pairs if pair not in sound)
        instead = "another window is used" if sound else "its values are shown as if it had none"
        notes.append(f"has a window of the width {width:g} at {centre:g}, which shows nothing; {instead}")
    if len(sound) > 1:
        notes.append(f"has {len(sound)} windows; the first is used")
    if sound and function == "LINEAR" and sound[0][1] < 1:
        notes.append(f"has a LINEAR window of the width {sound[0][1]:g}, below 1; it is read as LINEAR_EXACT")
    return [Window(centre=centre, width=width, function=function) for centre, width in sound], tuple(notes)


def _inversion(header: "Dataset") -> tuple[bool, tuple[str, ...]]:
    if header.get("PresentationLUTSequence"):
        raise UnfitError("has a presentation table, which is not applied here. Export it with its values as shown.")
    shape = str(header.get("PresentationLUTShape", "") or "").strip().upper()
    if shape not in _SHAPES:
        raise UnfitError(f"has the PresentationLUTShape '{shape}'; IDENTITY and INVERSE are known. Export it again.")
    kind = str(header.PhotometricInterpretation)
    is_inverted = kind == "MONOCHROME1" or shape == "INVERSE"
    if shape and (shape == "INVERSE") != (kind == "MONOCHROME1"):
        return is_inverted, (f"declares {kind} and PresentationLUTShape {shape}; small values are shown white",)
    return is_inverted, ()


def _padding(header: "Dataset") -> tuple[float, float] | None:
    """Read least and largest stored value of padding; of floating-point pixels by elements of their own."""
    kind = next((name for name in ("Float", "DoubleFloat") if f"{name}PixelPaddingValue" in header), "")
    value, limit = (number(header, f"{kind}PixelPadding{part}") for part in ("Value", "RangeLimit"))
    if value is None:
        return None
    ends = [value] if limit is None else [value, limit]
    ends = ends if kind else [_as_stored(whole, header) for whole in ends]
    return min(ends), max(ends)


def _as_stored(value: float, header: "Dataset") -> float:
    """Give padding the sign of the pixels: files write it with either."""
    bits, stored = whole_number(header, "BitsAllocated", 0), stored_bits(header)
    found = int(value) % (1 << bits)
    if is_signed(header):
        for sign in (bits, stored):
            if (1 << sign) // 2 <= found < 1 << sign:
                return found - (1 << sign)
    return found


def _to_uint8(fractions: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(fractions, 0, 1) * 255), np.uint8)


def is_other_profile(profile: Any) -> bool:  # noqa: ANN401 (bytes, or nothing)
    """Tell whether a profile is there and does not call itself sRGB."""
    return isinstance(profile, bytes) and bool(profile) and not any(name in profile for name in _SRGB_NAMES)
