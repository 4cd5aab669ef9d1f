"""Conversion of opened images of every kind to 8-bit RGB, with notes on what was decided for a file.

More than 8 bits a sample are scaled by the bits in use: the least of 8, 10, 12, 14 and 16 that hold the largest value,
since cameras and scanners write 12 bits into files of 16, unless the file says how many there are.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from vision_core.dicom.display import OTHER_PROFILE, is_other_profile
from vision_core.errors import InputError

_BACKGROUND = (255, 255, 255)
_USED_BITS = (8, 10, 12, 14, 16)
_WORD = 2**16
_ORIENTATION_TAG = 0x0112
_BITS_TAG, _PHOTOMETRIC_TAG, _PLANAR_TAG, _LARGEST_TAG = 258, 262, 284, 281
_DESCRIPTION_TAG = 270
_CHANNELS = re.compile(r'SizeC="(\d+)"|^channels=(\d+)', re.MULTILINE)  # as OME and ImageJ tell it
_SRGB_GAMMA, _GAMMA_TOLERANCE = 0.45455, 0.005
_PLANES = 2
_TWELVE = ";12"


def to_rgb(path: Path, image: ImageFile.ImageFile) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert an image that is opened and not decoded yet; the orientation of the camera is applied.

    Returns:
        The image as RGB, and notes, which begin with the file's name.

    Raises:
        InputError: No rule brings its values to 8 bits.
        Exception: Of any kind, from a decoder that met damage.
    """
    refuse_planes(path, image)
    notes, raw_mode, tags, mode = header_notes(image), _raw_mode(image), getattr(image, "tag_v2", {}), image.mode
    is_deep, orientation = is_deep_colour(image), image.getexif().get(_ORIENTATION_TAG, 1)
    image.load()  # refuses what is cut off
    if is_deep:
        return _deep_colour(path, image, orientation, notes)
    turned = ImageOps.exif_transpose(image)
    if _is_deep_grey(mode):
        bits = 12 if _TWELVE in raw_mode else _declared_bits(tags)
        grey, told = _scaled(_whole_words(path, np.asarray(turned)), bits)
        grey = 255 - grey if _is_inverted(tags) else grey
        return Image.fromarray(grey).convert("RGB"), (*notes, *told)
    return _opaque(turned), notes


@dataclass(frozen=True, kw_only=True)
class DeepGrey:
    """Grey values of more than 8 bits, as stored.

    Attributes:
        values: ``(H, W)`` uint16, turned as the camera was.
        bits: Bits in use.
        is_inverted: Whether small values are white.
    """

    values: NDArray[np.uint16]
    bits: int
    is_inverted: bool


def to_deep_grey(path: Path, image: ImageFile.ImageFile) -> DeepGrey | None:
    """Read the values that ``to_rgb`` scales to 8 bits; None for an image of 8 bits, or of colours.

    Raises:
        InputError, Exception: As ``to_rgb``.
    """
    if not _is_deep_grey(image.mode):
        return None
    raw_mode, tags = _raw_mode(image), getattr(image, "tag_v2", {})
    image.load()
    values = _whole_words(path, np.asarray(ImageOps.exif_transpose(image)))
    declared = 12 if _TWELVE in raw_mode else _declared_bits(tags)
    return DeepGrey(values=values, bits=max(declared, _used_bits(values)), is_inverted=_is_inverted(tags))


def _is_deep_grey(mode: str) -> bool:
    return mode.startswith("I;16") or mode in {"I", "F"}


def _is_inverted(tags: Any) -> bool:  # noqa: ANN401 (of Pillow)
    """Tell whether a TIFF calls small values white, which Pillow applies to 8 bits only."""
    return bool(tags.get(_PHOTOMETRIC_TAG) == 0)


def header_notes(image: ImageFile.ImageFile) -> tuple[str, ...]:
    """Tell what the header of an opened image leaves open."""
    notes = []
    # Cameras append a preview as a second frame and call the file MPO: the photograph is the first.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append(f"holds {getattr(image, 'n_frames', 2)} frames; the first is used")
    if is_other_profile(image.info.get("icc_profile")):
        notes.append(OTHER_PROFILE)
    gamma = image.info.get("gamma")
    if isinstance(gamma, float) and gamma > 0 and abs(gamma - _SRGB_GAMMA) > _GAMMA_TOLERANCE:
        notes.append(f"states a gamma of {gamma:g}, which is not applied; viewers that do show other shades")
    return tuple(notes)


def has_deep_values(image: ImageFile.ImageFile) -> bool:
    """Tell whether an opened image has more than 8 bits a sample, so that the values decide how it is read."""
    return image.mode.startswith("I") or image.mode == "F" or is_deep_colour(image)


def is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Tell whether an opened image has colours of 16 bits a sample, of which Pillow keeps 8."""
    if image.format == "PPM" and image.mode == "RGB" and image.tile:
        arguments = image.tile[0].args
        return isinstance(arguments, tuple) and bool(arguments[-1] == _WORD - 1)
    return image.mode in {"RGB", "RGBA", "LA"} and ";16" in _raw_mode(image)


def refuse_planes(path: Path, image: ImageFile.ImageFile) -> None:
    """Refuse TIFFs whose colours are no RGB by pixel: deep ones in planes, channels as pages, CIELab.

    Pillow and OpenCV read the first as other pictures, the second as grey, the third with other shades.

    Raises:
        InputError: It is such a file.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode == "LAB":
        raise InputError(f"'{path}' is stored as CIELab. Save it as RGB.")
    found = _CHANNELS.search(str(tags.get(_DESCRIPTION_TAG, "")))
    channels = int(found[1] or found[2]) if found else 1
    if channels > 1 and image.mode not in {"RGB", "RGBA"}:
        raise InputError(
            f"'{path}' holds {channels} channels as pages of their own, of which one would be read as grey. "
            "Save it as RGB, or one channel as an image of its own."
        )
    bits = tags.get(_BITS_TAG, (8,))
    if tags.get(_PLANAR_TAG) == _PLANES and len(bits) > 1 and max(bits) > 8:
        raise InputError(f"'{path}' stores colours of '{max(bits)}' bits in planes. Save them by pixel, or as PNG.")


def _raw_mode(image: ImageFile.ImageFile) -> str:
    if not image.tile:
        return ""
    arguments: Any = image.tile[0].args
    return str(arguments if isinstance(arguments, str) else arguments[0] if arguments else "")


def _opaque(image: Image.Image) -> Image.Image:
    """Lay transparency over white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _declared_bits(tags: Any) -> int:  # noqa: ANN401 (of Pillow)
    """Read the bits in use that a TIFF declares by its largest sample; 0 where it declares none."""
    largest = tags.get(_LARGEST_TAG)
    largest = largest[0] if isinstance(largest, tuple) and largest else largest
    return next((bits for bits in _USED_BITS if largest == 2**bits - 1), 0)


def _scaled(values: NDArray[np.uint16], bits: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Scale whole values by the bits in use; ``bits``: as declared, or 0."""
    used = _used_bits(values)
    notes: tuple[str, ...] = ()
    if bits < used:
        bits = used
        notes = (f"uses {bits} of its 16 bits or more a sample, and is read as such",) if bits < _USED_BITS[-1] else ()
    table = np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
    return table[values], notes


def _used_bits(values: NDArray[np.uint16]) -> int:
    largest = int(values.max(initial=0))
    return next(each for each in _USED_BITS if largest < 2**each) if largest else _USED_BITS[-1]


def _whole_words(path: Path, grey: NDArray[np.generic]) -> NDArray[np.uint16]:
    values = grey if grey.dtype.kind == "u" else grey.astype(np.float64)
    low, high = values.min(), values.max()
    is_whole = values.dtype.kind == "u" or bool((values % 1 == 0).all())
    if not (low >= 0 and high < _WORD and is_whole) or (grey.dtype.kind == "f" and high <= 1):  # NaN fails, too
        raise InputError(
            f"'{path}' holds values from '{low:g}' to '{high:g}', which no rule brings to 8 bits. "
            "Save it with 8 or 16 bits a channel."
        )
    return values.astype(np.uint16)


def _deep_colour(
    path: Path, image: Image.Image, orientation: int, notes: tuple[str, ...]
) -> tuple[Image.Image, tuple[str, ...]]:
    """Read colours of 16 bits, which Pillow cuts to their high bytes."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it writes to the terminal
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    sizes = (image.height, image.width), (image.width, image.height)  # Pillow turns TIFFs while it reads them
    if found is None or found.dtype != np.uint16 or found.ndim != 3 or found.shape[:2] not in sizes:
        raise InputError(f"'{path}' has colours of 16 bits that cannot be decoded. Save it again, with 8 bits.")
    deep: NDArray[np.uint16] = np.asarray(found, np.uint16)
    colours, told = _scaled(deep[..., 2::-1], 0)
    picture = Image.fromarray(np.ascontiguousarray(colours))
    if image.mode in {"RGBA", "LA"} and deep.shape[2] == 4:
        picture.putalpha(Image.fromarray(_scaled(deep[..., 3], 16)[0]))
    picture.getexif()[_ORIENTATION_TAG] = orientation
    return _opaque(ImageOps.exif_transpose(picture)), (*notes, *told)
