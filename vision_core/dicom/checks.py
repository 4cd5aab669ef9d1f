"""Checks of a DICOM file before decoding: header, pixels and decoder.

Source: DICOM PS3.3, C.7.6.3; PS3.5, 8.
"""

from typing import TYPE_CHECKING

from vision_core.dicom.header import UnfitError, is_signed, num_frames, whole_number
from vision_core.dicom.structure import PixelElement

if TYPE_CHECKING:
    from pydicom import Dataset

_COLOURS = {
    1: {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"},
    3: {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"},
}
_JPEG_2000_COLOURS = {"YBR_ICT", "YBR_RCT"}
_SHAPE = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
LOSSLESS_JPEG = {"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"}
_EXTENDED_JPEG = "1.2.840.10008.1.2.4.51"
LOSSY_JPEG = {"1.2.840.10008.1.2.4.50", _EXTENDED_JPEG}
_JPEG_2000 = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}
SCREEN_BITS = 8
_SEGMENTATION = "is a segmentation (SEG): its pixels are masks, no picture. Give the image that was segmented."
_DOSES = "is a map of doses (RTDOSE), no picture. Give the CT or MR that the plan was made on."
_NO_PICTURES = {  # by class of object, and by modality where a program wrote another class
    "1.2.840.10008.5.1.4.1.1.66.4": _SEGMENTATION,
    "1.2.840.10008.5.1.4.1.1.66.7": _SEGMENTATION,  # as a map of labels
    "SEG": _SEGMENTATION,
    "1.2.840.10008.5.1.4.1.1.481.2": _DOSES,
    "RTDOSE": _DOSES,
}
_EXTRA_OF = {
    _EXTENDED_JPEG: "pylibjpeg pylibjpeg-libjpeg",
    **{f"1.2.840.10008.1.2.4.{number}": "pylibjpeg 'pylibjpeg-openjpeg>=2'" for number in (201, 202, 203)},  # HTJ2K
}


def find_fault(header: "Dataset", pixels: PixelElement, max_megapixels: float, key: str = "") -> str:
    """Find a fault that prevents decoding; empty if there is none.

    Args:
        header: Header of the file, with its file meta information.
        pixels: Length and fragments of the file's pixels.
        max_megapixels: Larger images are a fault.
        key: Setting of the running verb that raises this limit, for the message; empty: it has none.

    Returns:
        The rest of a sentence that begins with the file's name.
    """
    try:
        return (
            _kind_fault(header)
            or _header_fault(header, max_megapixels, key)
            or _colour_fault(header, pixels)
            or _pixel_fault(header, pixels)
            or _decoder_fault(header)
        )
    except UnfitError as error:
        return str(error)
    except (AttributeError, KeyError, TypeError, ValueError):  # an element is missing, empty, or of the wrong kind
        return "has a header with elements missing or unreadable. Copy or export it again."


def choose_decoder(header: "Dataset", precision: int) -> str:
    """Choose the decoder of a stream of ``precision`` bits by pydicom's name; empty: pydicom chooses.

    GDCM decodes lossless JPEG: another decoder gives wrong pixels for some legal streams, without an error. Pillow
    decodes what it can, because GDCM ends the whole process at some damaged streams.
    """
    syntax, samples = header.file_meta.TransferSyntaxUID, int(header.SamplesPerPixel)
    if syntax in LOSSLESS_JPEG:
        return "gdcm"
    is_for_pillow = precision <= SCREEN_BITS or (syntax in _JPEG_2000 and samples == 1)
    return "pillow" if syntax in LOSSY_JPEG | _JPEG_2000 and is_for_pillow else ""


def _kind_fault(header: "Dataset") -> str:
    """Find an object whose pixels are no picture, though they could be shown as one."""
    stored = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    modality = str(header.get("Modality", "") or "").strip().upper()
    return _NO_PICTURES.get(str(stored), "") or _NO_PICTURES.get(modality, "")


def _header_fault(header: "Dataset", max_megapixels: float, key: str) -> str:
    missing = [name for name in (*_SHAPE, "PhotometricInterpretation") if header.get(name) in {None, ""}]
    if missing:
        return f"declares no {', '.join(missing)}. Export it again."
    rows, columns, samples, allocated = (whole_number(header, name, 0) for name in _SHAPE)
    frames = num_frames(header)
    if min(rows, columns, frames) < 1:
        return f"declares '{frames}' frames of '{columns} x {rows}' pixels. Export it again."
    if rows * columns > max_megapixels * 1e6:
        megapixels = rows * columns / 1e6
        return (
            f"declares {columns} x {rows} pixels, '{megapixels:.1f}' megapixels; {max_megapixels:g} are allowed. "
            f"{f'Raise {key}, or make' if key else 'Make'} it smaller."
        )
    if samples not in {1, 3} or allocated not in {1, 8, 16, 32, 64}:
        return f"has '{samples}' samples of '{allocated}' bits a pixel; 1 or 3 of 1, 8, 16, 32 or 64 can be read."
    return _bits_fault(header, allocated)


def _bits_fault(header: "Dataset", allocated: int) -> str:
    stored = whole_number(header, "BitsStored", allocated) or allocated
    high = whole_number(header, "HighBit", stored - 1)
    if not 1 <= stored <= allocated:
        return f"declares '{stored}' stored bits in '{allocated}' allocated ones. Export it again."
    if high != stored - 1:
        return f"has its highest bit at '{high}' with {stored} stored bits; {stored - 1} is expected. Export it again."
    return ""


def _colour_fault(header: "Dataset", pixels: PixelElement) -> str:
    """Find colours that contradict the samples, or that nobody can convert."""
    from pydicom.uid import JPEG2000TransferSyntaxes

    declared, samples = str(header.PhotometricInterpretation), whole_number(header, "SamplesPerPixel", 0)
    if declared not in _COLOURS[samples]:
        return f"declares '{declared}' of '{samples}' samples a pixel, which is not read here. Export it again."
    if samples == 1:
        return ""
    if header.BitsAllocated == 1:
        return f"declares '{declared}' of one bit a sample, which is not read here. Export it again."
    if is_signed(header):
        return "declares colours with a sign, which no screen shows. Export it again."
    if declared in _JPEG_2000_COLOURS and header.file_meta.TransferSyntaxUID not in JPEG2000TransferSyntaxes:
        return f"declares '{declared}', colours of JPEG 2000, and is none. Export it again."
    if pixels.num_fragments is not None:
        return ""
    if declared == "YBR_FULL_422" and (header.Columns % 2 or whole_number(header, "PlanarConfiguration", 0)):
        return "declares YBR_FULL_422, which needs an even number of columns and colours by pixel. Export it again."
    return ""


def _pixel_fault(header: "Dataset", pixels: PixelElement) -> str:
    from pydicom.pixels.utils import get_expected_length

    frames = num_frames(header)
    if header.file_meta.TransferSyntaxUID.is_encapsulated:
        fragments = pixels.num_fragments
        if fragments is None:
            return "declares compressed pixels but holds plain ones. Export it again."
        short = f"declares '{frames}' frames; its compressed pixels have {fragments} pieces. Copy or export it again."
        return short if fragments < frames else ""
    if pixels.num_fragments is not None:
        return "declares plain pixels but holds compressed ones. Export it again."
    expected = get_expected_length(header)
    if pixels.num_bytes >= expected:
        return ""
    return (
        f"declares '{expected}' bytes of pixels ('{frames}' frames of {header.Columns} x {header.Rows}); "
        f"{pixels.num_bytes} are in the file. Copy or export it again."
    )


def _decoder_fault(header: "Dataset") -> str:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"is of the transfer syntax '{syntax.name}', which is no still image known here. Export it as JPEG 2000."
    if syntax in LOSSLESS_JPEG:
        is_ready = "gdcm" in decoder.available_plugins
    elif syntax == _EXTENDED_JPEG and whole_number(header, "BitsStored", 0) != SCREEN_BITS:
        is_ready = "pylibjpeg" in decoder.available_plugins  # the others read 8 bits of it only
    else:
        is_ready = decoder.is_available
    extra = _EXTRA_OF.get(syntax, "'domainsight[medical]'")
    remedy = f"for which no decoder is installed. Install it: pip install {extra}."
    return "" if is_ready else f"is compressed as '{syntax.name}', {remedy}"
