"""Decoding of one frame of a DICOM file to its stored values, whatever the compression.

No decoder changes colours or bits here: what the stream says about its colours wins over the header, and bits beyond
those that belong to a pixel are cut off behind every decoder.
Source: DICOM PS3.3, C.7.6.3.1; PS3.5, 8.1.1, 8.2 and A.4.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision_core.dicom.checks import LOSSY_JPEG, SCREEN_BITS, choose_decoder
from vision_core.dicom.cine import FramePixels
from vision_core.dicom.codestream import (
    JPEG_START,
    Stream,
    is_sound_jpeg_header,
    jpeg_2000_start,
    read_stream,
)
from vision_core.dicom.header import UnfitError, is_signed, stored_bits, whole_number

if TYPE_CHECKING:
    from pydicom import Dataset

_YBR = "YBR_FULL", "YBR_FULL_422"
_PALETTE_BOX = b"pclr"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Stored values of one frame.

    Attributes:
        values: ``(H, W)``, or colours as ``(H, W, 3)`` RGB; without bits that belong to no pixel.
        raw: The same with all bits, where grey.
        notes: Sentences on what was read otherwise than the header says; they begin with the file's name.
    """

    values: NDArray[Any]
    raw: NDArray[Any]
    notes: tuple[str, ...]


def decode_frame(pixels: FramePixels, frame: int) -> Stored:
    """Decode one frame, by its number from 0.

    Raises:
        UnfitError: Stream and header contradict each other.
        Exception: Of any kind, from a decoder that met damage.
    """
    header = pixels.header
    if pixels.is_compressed:
        raw, stream, notes = _decompress(pixels, frame)
    else:
        notes = pixels.notes  # refuses pixels of another size
        raw, stream = _unpack(pixels, frame), None
    _refuse_overlay(header)
    values = _cut_bits(raw, header)
    if values.ndim == 3:
        values, told = _to_rgb(values, header, stream)
        return Stored(values=values, raw=raw, notes=(*notes, *told))
    return Stored(values=values, raw=raw, notes=(*notes, *_foreign_bits(raw, values, header)))


def _unpack(pixels: FramePixels, frame: int) -> NDArray[Any]:
    from pydicom.datadict import keyword_for_tag
    from pydicom.pixels.decoders.base import get_decoder

    header = pixels.header
    if header.BitsAllocated == 1:
        return _unpack_bits(pixels, frame)
    values, _ = get_decoder(header.file_meta.TransferSyntaxUID).as_array(
        pixels.plain(frame),
        index=0,
        raw=True,
        number_of_frames=1,  # type: ignore[arg-type]
        rows=header.Rows,
        columns=header.Columns,
        samples_per_pixel=int(header.SamplesPerPixel),  # type: ignore[arg-type]
        bits_allocated=header.BitsAllocated,
        bits_stored=stored_bits(header),  # type: ignore[arg-type]
        pixel_representation=int(is_signed(header)),  # type: ignore[arg-type]
        pixel_keyword=keyword_for_tag(pixels.element.tag),  # type: ignore[arg-type]  # those of fractions have others
        pixel_vr=pixels.vr,  # type: ignore[arg-type]
        planar_configuration=whole_number(header, "PlanarConfiguration", 0),  # type: ignore[arg-type]
        photometric_interpretation=str(header.PhotometricInterpretation),  # type: ignore[arg-type]
        correct_unused_bits=False,  # type: ignore[arg-type]
    )
    return np.asarray(values)


def _unpack_bits(pixels: FramePixels, frame: int) -> NDArray[np.uint8]:
    header = pixels.header
    stored, skipped = pixels.bits(frame)
    content = np.frombuffer(stored, np.uint8)
    if not header.file_meta.TransferSyntaxUID.is_little_endian and pixels.element.vr == "OW":
        content = content[: len(content) // 2 * 2].view(">u2").astype("<u2").view(np.uint8)
    bits = np.unpackbits(content, bitorder="little")
    return bits[skipped : skipped + header.Rows * header.Columns].reshape(header.Rows, header.Columns)


def _decompress(pixels: FramePixels, frame: int) -> tuple[NDArray[Any], Stream | None, tuple[str, ...]]:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    header = pixels.header
    syntax, samples = header.file_meta.TransferSyntaxUID, int(header.SamplesPerPixel)
    compressed = pixels.compressed(frame)
    stream, content = read_stream(compressed), _without_boxes(compressed)
    is_boxed = content is not compressed
    # Pillow takes no stream out of a file with boxes: pydicom chooses then.
    precision = stream.precision if stream else stored_bits(header)
    plugin = "" if is_boxed else choose_decoder(header, precision)
    if plugin != "pillow" and content.startswith(JPEG_START) and not is_sound_jpeg_header(content):
        raise UnfitError("has pixels with a damaged JPEG header. Copy or export it again.")  # GDCM ends the process
    notes = (*_check_stream(stream, header), *pixels.notes)
    if syntax in LOSSY_JPEG and plugin == "pillow":
        return _decode_jpeg(content, samples).astype(_dtype(header)), stream, notes
    values, _ = get_decoder(syntax).as_array(
        encapsulate([content]),
        index=0,
        raw=True,
        decoding_plugin=plugin,
        number_of_frames=1,  # type: ignore[arg-type]
        rows=header.Rows,
        columns=header.Columns,
        samples_per_pixel=samples,  # type: ignore[arg-type]
        bits_allocated=header.BitsAllocated,
        bits_stored=precision,  # type: ignore[arg-type]  # GDCM ends the process where the stream has others
        pixel_representation=int(is_signed(header)),  # type: ignore[arg-type]
        pixel_keyword="PixelData",  # type: ignore[arg-type]
        planar_configuration=0,  # type: ignore[arg-type]  # decoders give colours by pixel, whatever the header says
        photometric_interpretation="MONOCHROME2" if samples == 1 else "RGB",  # type: ignore[arg-type]
        correct_unused_bits=False,  # type: ignore[arg-type]
    )
    return np.asarray(values), stream, notes


def _decode_jpeg(compressed: bytes, samples: int) -> NDArray[np.uint8]:
    """Decode a JPEG of 8 bits without converting its colours."""
    image = Image.open(BytesIO(compressed), formats=("JPEG",))
    mode = "L" if samples == 1 else "RGB"
    image.tile = [tile._replace(args=(mode, mode)) for tile in image.tile]  # mode of the result, mode of the stream
    return np.asarray(image)


def _without_boxes(compressed: bytes) -> bytes:
    """Take the stream out of a JPEG 2000 file, whose boxes decoders follow in different ways."""
    at = jpeg_2000_start(compressed) if not compressed.startswith(JPEG_START) else 0
    if at <= 0:
        return compressed
    if _PALETTE_BOX in compressed[:at]:
        raise UnfitError("holds a JPEG 2000 file with a palette of its own, which is not followed. Export it again.")
    return compressed[at:]


def _check_stream(stream: Stream | None, header: "Dataset") -> tuple[str, ...]:
    if stream is None:
        return ()
    declared = int(header.Rows), int(header.Columns), int(header.SamplesPerPixel)
    if stream.shape != declared:
        raise UnfitError(
            f"declares '{declared}' rows, columns and samples, its compressed image '{stream.shape}'. Export it again."
        )
    if stream.has_gaps:
        raise UnfitError("holds JPEG 2000 whose colours have fewer pixels than its brightness. Export it again.")
    stored = stored_bits(header)
    if stream.precision > whole_number(header, "BitsAllocated", 0):
        raise UnfitError(
            f"declares '{header.BitsAllocated}' bits a sample, its compressed image {stream.precision}. "
            "Export it again."
        )
    if header.file_meta.TransferSyntaxUID in LOSSY_JPEG and stream.precision < stored:
        return (f"declares {stored} bits a sample, its compressed image has {stream.precision}",)
    return ()


def _dtype(header: "Dataset") -> np.dtype[Any]:
    return np.dtype(f"{'i' if is_signed(header) else 'u'}{int(header.BitsAllocated) // 8}")


def _cut_bits(raw: NDArray[Any], header: "Dataset") -> NDArray[Any]:
    """Cut off the bits above those stored, where overlays may lie; the highest one stored is the sign."""
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    unused = 8 * raw.dtype.itemsize - stored_bits(header)
    if raw.dtype.kind == "f" or unused <= 0:
        return raw
    return (raw << unused) >> unused


def _refuse_overlay(header: "Dataset") -> None:
    """Refuse an overlay in a bit of the pixels' own values: programs show it as part of them, or cut it off.

    Raises:
        UnfitError: There is one.
    """
    for group in range(0x6000, 0x6020, 2):
        allocated, position = header.get((group, 0x0100)), header.get((group, 0x0102))
        if (group, 0x3000) in header or allocated is None or position is None or allocated.value == 1:
            continue  # an overlay with data of its own, or none
        if isinstance(position.value, int) and position.value < stored_bits(header):
            raise UnfitError(
                f"declares an overlay in bit '{position.value}' and {stored_bits(header)} bits of image, which "
                "contradict each other. Export it again."
            )


def _foreign_bits(raw: NDArray[Any], values: NDArray[Any], header: "Dataset") -> tuple[str, ...]:
    """Tell of bits above those stored that are neither a sign nor a declared overlay."""
    stored = stored_bits(header)
    has_overlay = any(0x6000 <= tag.group < 0x6100 for tag in header.keys())  # noqa: SIM118 (elements are not parsed)
    if has_overlay or stored >= 8 * raw.dtype.itemsize or raw.dtype.kind == "f":
        return ()
    is_foreign = raw != values
    if is_signed(header):
        is_foreign &= raw != (values & (2**stored - 1))
    told = f"has bits set above the {stored} that it declares as stored; they are left out"
    return (told,) if is_foreign.any() else ()


def _to_rgb(values: NDArray[Any], header: "Dataset", stream: Stream | None) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Convert colours to RGB by what the stream says about them, else by the header."""
    from pydicom.pixels.processing import convert_color_space

    declared = str(header.PhotometricInterpretation)
    said = "YBR" if declared in _YBR else "RGB"  # of YBR_ICT and YBR_RCT decoders give RGB
    found = stream.colours if stream and stream.colours else said
    told: tuple[str, ...] = ()
    if found != said:
        if stream and stream.is_marked and header.file_meta.TransferSyntaxUID not in LOSSY_JPEG:
            raise UnfitError(
                f"declares '{declared}' and holds a lossless stream with the mark of JFIF, which stands for YBR: "
                "other programs show either. Export it again."
            )
        told = (f"declares colours as {declared}; its compressed image is {found} and read as such",)
    if found == "RGB":
        return values, told
    if stored_bits(header) != SCREEN_BITS:
        raise UnfitError(
            f"declares '{declared}' of {stored_bits(header)} bits; YBR of 8 bits can be read. Export it again."
        )
    return convert_color_space(values.astype(np.uint8), "YBR_FULL", "RGB"), told
