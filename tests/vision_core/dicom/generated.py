"""Generated DICOM files: draws of bits, signs, colours, compressions and display values, with the right picture."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import FileDataset, dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.bad_inputs.dicoms import dataset

WIDTH = 13  # odd, and so is the height of native pixels, so that odd lengths occur
_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
_GDCM = {
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
    JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
}


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A file, the shades from 0 to 255 that belong to it, before rounding, and the draws for a message."""

    path: Path
    shown: NDArray[np.float64]
    drawn: dict[str, Any]


def generate(seed: int, folder: Path) -> Generated:
    """Write the file of a seed: grey in two draws of three, else colours."""
    draw = np.random.default_rng(seed)
    return _grey(draw, folder) if draw.random() < 2 / 3 else _colour(draw, folder)


def _grey(draw: np.random.Generator, folder: Path) -> Generated:
    allocated = int(draw.choice([8, 16, 16, 16, 32]))
    stored = int(draw.integers(max(2, allocated // 2 - 4), allocated + 1))
    is_signed = bool(draw.integers(2))
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1)) if is_signed else (0, 2**stored)
    syntax = str(draw.choice([*_NATIVE, *((RLELossless, *_GDCM) if allocated <= 16 else ())]))
    values = draw.integers(low, high, (_height(syntax), WIDTH))
    dtype = np.dtype(f"{'i' if is_signed else 'u'}{allocated // 8}")
    header = dataset(values.astype(dtype), BitsStored=stored, HighBit=stored - 1)
    header.PhotometricInterpretation = str(draw.choice(["MONOCHROME1", "MONOCHROME2"]))
    padding = _padding(draw, values, header)
    _display(draw, header, low, high)
    bits = values & (2**stored - 1) if is_signed and draw.integers(2) else values  # the sign may end at the last bit
    raw = bits.astype(dtype)
    has_overlay = stored < allocated and bool(draw.integers(2))
    if has_overlay:
        flags = draw.integers(0, 2, values.shape) << (allocated - 1)
        raw = ((raw.astype(np.int64) & (2 ** (allocated - 1) - 1)) | flags).astype(f"u{allocated // 8}").view(dtype)
    path = write(header, raw, syntax, folder / "grey.dcm", is_whole=has_overlay or bits is not values)
    drawn = {"bits": (allocated, stored), "signed": is_signed, "syntax": syntax, "overlay": has_overlay}
    return Generated(path=path, shown=shown(values, header, padding), drawn=drawn)


def shown(values: NDArray[Any], header: Dataset, padding: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The shades of grey values by pydicom's own steps, as ``(H, W, 3)``."""
    if header.get("ModalityLUTSequence"):
        count, first, _ = header.ModalityLUTSequence[0].LUTDescriptor
        values = np.clip(values, first, first + count - 1)
    modality = np.asarray(apply_modality_lut(values, header), np.float64)
    ends = np.array([0.0, 2.0**header.BitsStored - 1]) - (2.0 ** (header.BitsStored - 1)) * header.PixelRepresentation
    ends = ends * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0]
        first = table.LUTDescriptor[1]
        whole = np.clip(np.rint(modality).astype(np.int64), first, first + table.LUTDescriptor[0] - 1)
        fractions = apply_voi_lut(whole, header) / (2.0 ** table.LUTDescriptor[2] - 1)
    elif "WindowWidth" in header:
        fractions = (apply_voi_lut(modality, header) - ends[0]) / (ends[1] - ends[0])
    elif header.get("ModalityLUTSequence") and header.BitsStored <= 8:
        fractions = modality / (2.0 ** header.ModalityLUTSequence[0].LUTDescriptor[2] - 1)
    elif header.PixelRepresentation == 0 and header.BitsStored <= 8:
        fractions = (modality - ends.min()) / np.ptp(ends)
    else:
        least, most = modality[~padding].min(), modality[~padding].max()
        fractions = (modality - least) / (most - least) if most > least else np.zeros(modality.shape)
    grey = np.clip(fractions, 0, 1) * 255
    grey = 255 - grey if header.PhotometricInterpretation == "MONOCHROME1" else grey
    return np.repeat(np.where(padding, 0, grey)[..., None], 3, axis=2)


def _padding(draw: np.random.Generator, values: NDArray[Any], header: Dataset) -> NDArray[np.bool_]:
    if draw.random() < 0.5 or header.BitsAllocated > 16:
        return np.zeros(values.shape, np.bool_)
    least, most = np.sort(draw.choice(values.ravel(), 2))
    most = min(most, least + np.ptp(values) // 2)
    header.PixelPaddingValue, limit = int(least), int(most)
    if draw.random() < 0.5:
        header.PixelPaddingRangeLimit = limit
        return np.asarray((values >= least) & (values <= limit))
    return np.asarray(values == least)


def _display(draw: np.random.Generator, header: Dataset, low: int, high: int) -> None:
    """Add rescaling and, in most draws, a window or a display table."""
    slope, intercept = 1.0, 0.0
    if low == 0 and header.BitsAllocated == 16 and draw.random() < 0.1:
        header.ModalityLUTSequence = [_table(draw, low, high, int(draw.choice([8, 16])))]
        return
    if draw.random() < 0.6:
        slope, intercept = float(draw.choice([1, 2, 0.5, -1, 0.001])), float(draw.choice([0, -1024, 10.5]))
        header.RescaleSlope, header.RescaleIntercept = slope, intercept
    kind = str(draw.choice(["none", "LINEAR", "LINEAR_EXACT", "SIGMOID", "table"]))
    width = max(1.0, round((high - low) * abs(slope) * float(draw.uniform(0.1, 1.2)), 3))
    if kind == "table" and header.BitsAllocated <= 16 and slope == 1 and intercept == 0:
        header.VOILUTSequence = [_table(draw, low, high, int(draw.choice([8, 10, 12, 16])))]
    elif kind not in {"none", "table"}:
        header.WindowCenter = round((low + high) / 2 * slope + intercept, 3)
        header.WindowWidth = width
        header.VOILUTFunction = kind


def _table(draw: np.random.Generator, low: int, high: int, bits: int) -> Dataset:
    table, count = Dataset(), int(draw.integers(2, 257))  # pydicom counts more of 8 bits wrong
    table.add_new("LUTDescriptor", "SS" if low < 0 else "US", [count, int(draw.integers(low, high) // 2), bits])
    table.add_new("LUTData", "US", draw.integers(0, 2**bits, count).tolist())
    return table


def _colour(draw: np.random.Generator, folder: Path) -> Generated:
    kind = str(draw.choice(["RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR"]))
    if kind == "PALETTE COLOR":
        return _palette(draw, folder)
    allocated = 8 if kind != "RGB" else int(draw.choice([8, 16]))
    syntax = str(draw.choice(_NATIVE[:3] if kind == "YBR_FULL_422" else [*_NATIVE[:3], RLELossless, *_GDCM]))
    syntax = JPEGLSLossless if syntax == JPEG2000Lossless and allocated > 8 else syntax  # no encoder of it here
    width = WIDTH + 1 if kind == "YBR_FULL_422" else WIDTH
    values = draw.integers(0, 2**allocated, (_height(syntax), width, 3)).astype(f"u{allocated // 8}")
    if kind == "YBR_FULL_422":
        values[:, 1::2, 1:] = values[:, ::2, 1:]
    header = dataset(values[..., 0], SamplesPerPixel=3, PhotometricInterpretation=kind, PlanarConfiguration=0)
    raw = values
    if kind == "YBR_FULL_422":
        raw = np.stack([values[:, ::2, 0], values[:, 1::2, 0], values[:, ::2, 1], values[:, ::2, 2]], axis=-1)
    elif syntax in _NATIVE and draw.integers(2):
        header.PlanarConfiguration = 1
        raw = values.transpose(2, 0, 1)
    path = write(header, np.ascontiguousarray(raw), syntax, folder / "colour.dcm")
    rgb = values if kind == "RGB" else convert_color_space(values.copy(), "YBR_FULL", "RGB")
    right = rgb / (2.0**allocated - 1) * 255
    return Generated(path=path, shown=right, drawn={"kind": kind, "allocated": allocated, "syntax": syntax})


def _palette(draw: np.random.Generator, folder: Path) -> Generated:
    allocated, bits = int(draw.choice([8, 16])), int(draw.choice([8, 16]))
    count, first = int(draw.integers(2, 256)), int(draw.integers(0, 50))
    values = draw.integers(0, 256, (12, WIDTH)).astype(f"u{allocated // 8}")
    header = dataset(values, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        header.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [count, first, bits])
        data = draw.integers(0, 2**bits, count).astype(f"<u{bits // 8}").tobytes()
        header.add_new(f"{colour}PaletteColorLookupTableData", "OW", data + bytes(len(data) % 2))
    path = write(header, values, str(draw.choice([*_NATIVE[:3], RLELossless])), folder / "palette.dcm")
    numbers = np.clip(values.astype(np.int64) - first, 0, count - 1) + first  # pydicom counts 8-bit tables in bytes
    if count % 2 and bits == 8:
        for colour in ("Red", "Green", "Blue"):
            name = f"{colour}PaletteColorLookupTableData"
            header[name].value = header[name].value[:count]
    right = apply_color_lut(numbers, header) / (2.0**bits - 1) * 255
    return Generated(path=path, shown=right, drawn={"palette": (allocated, bits, count, first)})


def _height(syntax: str) -> int:
    return WIDTH if syntax in _NATIVE else WIDTH - 1  # GDCM compresses no odd length of bytes


def write(header: FileDataset, raw: NDArray[Any], syntax: str, path: Path, *, is_whole: bool = False) -> Path:
    """Write pixels in a transfer syntax; ``is_whole`` compresses all allocated bits, as encoders do with overlays."""
    is_big = syntax == ExplicitVRBigEndian
    content = raw.astype(raw.dtype.newbyteorder(">" if is_big else "<")).tobytes()
    content += bytes(len(content) % 2)
    if syntax == JPEG2000Lossless and raw.dtype.itemsize == 1:
        content = jpeg_2000(raw.view(np.uint8))
    elif syntax in _GDCM or syntax == RLELossless:
        content = _compressed(header, content, syntax, path, is_whole=is_whole)
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.PixelData = content
    is_compressed = UID(syntax).is_encapsulated
    header["PixelData"].VR = "OB" if header.BitsAllocated == 8 or is_compressed else "OW"
    header["PixelData"].is_undefined_length = is_compressed
    dcmwrite(
        path,
        header,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=not is_big,
        force_encoding=True,
    )
    return path


def _compressed(header: FileDataset, content: bytes, syntax: str, path: Path, *, is_whole: bool) -> bytes:
    names = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    plain = dataset(**{name: header[name].value for name in names})
    plain.PixelData = content
    if plain.SamplesPerPixel == 3:
        plain.PlanarConfiguration, plain.PhotometricInterpretation = 0, header.PhotometricInterpretation
    if is_whole or syntax == RLELossless or plain.BitsAllocated == 8:
        plain.BitsStored, plain.HighBit, plain.PixelRepresentation = plain.BitsAllocated, plain.BitsAllocated - 1, 0
    if syntax == RLELossless:
        plain.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        return bytes(plain.PixelData)
    plain["PixelData"].VR = "OW"
    plain.save_as(path, enforce_file_format=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(_GDCM[UID(syntax)]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return bytes(dcmread(path).PixelData)


def jpeg_2000(pixels: NDArray[Any], **options: Any) -> bytes:  # noqa: ANN401 (of Pillow)
    """A JPEG 2000 stream without loss, as pixel data of one frame."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG2000", no_jp2=True, irreversible=False, **options)
    return encapsulate([stream.getvalue()])
