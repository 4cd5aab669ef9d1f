"""Conversion of stored DICOM values to 8-bit RGB: modality values, display table or window, colours.

Source: DICOM PS3.3, C.7.6.3.1, C.11.1 and C.11.2.
"""

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

_Values = NDArray[np.float64]
_SCREEN_BITS = 8
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


def to_display(stored: NDArray[Any], header: "Dataset", frame: int) -> NDArray[np.uint8]:
    """Convert the stored values of one frame to 8-bit RGB.

    Args:
        stored: ``(H, W)`` or ``(H, W, 3)``, colours as RGB.
        header: Header of the file.
        frame: Number of the frame, for values that an enhanced file keeps per frame.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        ValueError: Values are not finite, or a table is malformed; pydicom raises other errors for malformed tables.
    """
    photometric = str(header.get("PhotometricInterpretation", "") or "")
    if stored.ndim == 3:
        return _to_uint8(stored / _largest_value(header))
    if photometric == "PALETTE COLOR":
        return _apply_palette(stored, header)
    grey = _grey(stored, _frame_header(header, frame))
    grey = 255 - grey if photometric == "MONOCHROME1" else grey
    return np.repeat(grey[..., None], 3, axis=2)


def _frame_header(header: "Dataset", frame: int) -> "Dataset":
    """Copy a frame's display values from functional groups into the header."""
    merged = copy.copy(header)
    for group in _functional_groups(header, frame):
        for element in (
            element for sequence in group if sequence.VR == "SQ" and sequence.value for element in sequence[0]
        ):
            if element.keyword in _DISPLAY_NAMES:
                merged[element.tag] = element
    return merged


def apply_window(values: _Values, centre: float, width: float, function: str = "LINEAR") -> _Values:
    """Map values to [0, 1] by a LINEAR, LINEAR_EXACT or SIGMOID window."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT" or width <= 1:  # a linear window of a single step: fractions, meant exactly
        return np.clip((values - centre) / width + 0.5, 0, 1)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _grey(stored: NDArray[Any], header: "Dataset") -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    if not np.isfinite(stored).all():
        raise ValueError("pixels that are not finite")
    values = np.asarray(apply_modality_lut(stored, header), np.float64)
    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0]
        steps = apply_voi(np.rint(values).astype(np.int64), header)
        entry_bits = int(table.LUTDescriptor[2])
        return _to_uint8(np.asarray(steps, np.float64) / (2 ** (entry_bits if entry_bits > 0 else 16) - 1))
    window = _window_of(header)
    if window is not None:
        return _to_uint8(apply_window(values, *window))
    is_narrow = stored.dtype.kind == "u" and int(header.get("BitsStored", 0) or 0) in range(1, _SCREEN_BITS + 1)
    return (
        _to_uint8(stored / _largest_value(header)) if is_narrow else _to_uint8(_scale_to_range(values, stored, header))
    )


def _window_of(header: "Dataset") -> tuple[float, float, str] | None:
    """Read centre, width and kind of the first window; None where none is valid."""
    centre, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or not np.isfinite([centre, width]).all() or width <= 0:
        return None
    return centre, width, str(header.get("VOILUTFunction", "") or "LINEAR").upper()


def _first(value: Any) -> float | None:  # noqa: ANN401 (a number, several, or nothing)
    from pydicom.multival import MultiValue

    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if len(value) else None
    try:
        return None if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return None


def _scale_to_range(values: _Values, stored: NDArray[Any], header: "Dataset") -> _Values:
    """Scale least to largest value to [0, 1]; padding is left out and becomes black."""
    padding = header.get("PixelPaddingValue")
    is_image = np.ones(stored.shape, np.bool_) if padding is None else stored != padding
    if not is_image.any():
        return np.zeros_like(values)
    low, high = values[is_image].min(), values[is_image].max()
    return np.clip((values - low) / (high - low), 0, 1) * is_image if high > low else np.zeros_like(values)


def _apply_palette(stored: NDArray[Any], header: "Dataset") -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    colours = np.asarray(apply_color_lut(stored, header))[..., :3]
    return _to_uint8(colours / np.iinfo(colours.dtype).max)


def _largest_value(header: "Dataset") -> float:
    return float(2 ** int(header.get("BitsStored", 0) or header.BitsAllocated) - 1)


def _to_uint8(fractions: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(fractions, 0, 1) * 255), np.uint8)


def _functional_groups(header: "Dataset", frame: int) -> "Iterator[Dataset]":
    choices: dict[str, Callable[[Any], int]] = {
        "SharedFunctionalGroupsSequence": lambda _: 0,
        "PerFrameFunctionalGroupsSequence": lambda _: frame,
    }
    for name, pick in choices.items():
        groups = header.get(name)
        if groups and pick(groups) < len(groups):
            yield groups[pick(groups)]
