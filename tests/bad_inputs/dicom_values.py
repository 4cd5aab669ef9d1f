"""The museum of DICOM files that are easily shown wrong: code that makes each, and its right picture by hand."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.bad_inputs.dicoms import dataset, ramp, still
from tests.vision_core.dicom.generated import jpeg_2000, write

Shown = tuple[Path, NDArray[Any]]

WINDOWED = {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "LINEAR_EXACT"}


def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Shades as ``(H, W, 3)``."""
    return np.repeat(np.rint(values).astype(np.uint8)[..., None], 3, axis=2)


def twelve_bits() -> NDArray[np.uint16]:
    """``(16, 16)`` noise of 12 bits in 16."""
    return np.random.default_rng(0).integers(0, 4096, (16, 16)).astype(np.uint16)


def overlay(folder: Path, syntax: str, *, is_declared: bool = True) -> Shown:
    """Twelve bits in sixteen, and in bit 15 an overlay, as older scanners burn it in."""
    values, flags = twelve_bits(), np.eye(16, dtype=np.uint16)[::-1] << 15
    header = dataset(values, BitsStored=12, HighBit=11, **WINDOWED)
    if is_declared:
        header.add_new(0x60000010, "US", 16)
        header.add_new(0x60000011, "US", 16)
        header.add_new(0x60000102, "US", 15)
    path = write(header, (values | flags).astype(np.uint16), syntax, folder / "overlay.dcm", is_whole=True)
    return path, grey(values / 4096 * 255)


def sign_in_bit_eleven(folder: Path) -> Shown:
    """Signed values of 12 bits whose sign is not carried into the other four."""
    values = np.arange(-128, 128).reshape(16, 16) * 16
    header = dataset(values.astype(np.int16), BitsStored=12, HighBit=11)
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = 0, 4096, "LINEAR_EXACT"
    path = write(header, (values & 4095).astype(np.int16), ExplicitVRLittleEndian, folder / "sign.dcm")
    return path, grey((values / 4096 + 0.5) * 255)


def padding_range(folder: Path) -> Shown:
    """Padding of two kinds, -2000 and -1500, whose range is declared; the image goes from 0 to 255."""
    values = ramp(np.int16)
    values[:4], values[4:8] = -2000, -1500
    path = still(folder / "range.dcm", values, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1400)
    right = (np.clip(values, 128, 255) - 128) / 127 * 255
    return path, grey(np.where(values < 0, 0, right))


def padding_inverted(folder: Path) -> Shown:
    """Padding of 0 in a picture in which small values are white."""
    values = ramp(np.uint16)
    values[:4] = 0
    path = still(folder / "white.dcm", values, PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1")
    return path, grey(np.where(values == 0, 0, 255 - (np.clip(values, 64, 255) - 64.0) / 191 * 255))


def padding_unsigned(folder: Path) -> Shown:
    """Padding of -2000 in signed pixels, written as the unsigned 63536."""
    values = ramp(np.int16)
    values[0] = -2000
    found = dataset(values)
    found.add_new("PixelPaddingValue", "US", 63536)
    found.save_as(folder / "unsigned.dcm", enforce_file_format=True)
    return folder / "unsigned.dcm", grey(np.where(values < 0, 0, (np.clip(values, 16, 255) - 16) / 239 * 255))


def padding_float(folder: Path) -> Shown:
    """Padding of NaN in floating-point pixels."""
    values = ramp(np.float32)
    values[:2] = np.nan
    changes: dict[str, Any] = {"PixelData": None, "BitsStored": None, "HighBit": None, "PixelRepresentation": None}
    path = still(folder / "nan.dcm", values, FloatPixelData=values.tobytes(), **changes)
    found = dataset(values, FloatPixelData=values.tobytes(), **changes)
    found.FloatPixelPaddingValue = float("nan")
    found.save_as(path, enforce_file_format=True)
    return path, grey(np.where(np.isnan(values), 0, (np.nan_to_num(values, nan=32) - 32) / 223 * 255))


def negative_slope(folder: Path) -> Shown:
    """Eight bits without a window whose rescaling turns black to white."""
    path = still(folder / "negative.dcm", RescaleSlope=-1, RescaleIntercept=255)
    return path, grey(255 - ramp())


def window_of_one(folder: Path) -> Shown:
    """A linear window of the width 1: black up to 127, white from 128."""
    return still(folder / "one.dcm", WindowCenter=128, WindowWidth=1), grey(np.where(ramp() >= 128, 255, 0))


def windows(folder: Path, widths: Sequence[float] = (100, 20)) -> Shown:
    """Several windows at 100, the first of which is meant."""
    path = still(
        folder / "windows.dcm", ramp(np.uint16), WindowCenter=[100] * len(widths), WindowWidth=list(widths),
        VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    width = next(width for width in widths if width > 0)
    return path, grey(np.clip((ramp(np.float64) - 100) / width + 0.5, 0, 1) * 255)


def no_window(folder: Path, width: float) -> Shown:
    """A window that shows nothing, over values from 0 to 255 of sixteen bits."""
    return still(folder / "none.dcm", ramp(np.uint16), WindowCenter=40, WindowWidth=width), grey(ramp())


def inverse(folder: Path, kind: str, shape: str, *, is_inverted: bool) -> Shown:
    """Polarity by photometric interpretation and presentation shape."""
    path = still(folder / "inverse.dcm", PhotometricInterpretation=kind, PresentationLUTShape=shape)
    return path, grey(255 - ramp() if is_inverted else ramp())


def modality_table(folder: Path, bits: int = 12) -> Shown:
    """A modality table of twelve bits, which pydicom cannot read."""
    values = ramp(np.uint16) % 4
    path = still(folder / "table.dcm", values, ModalityLUTSequence=[table([4, 0, bits], [0, 4095, 1000, 2000])])
    return path, grey(np.array([0, 4095, 1000, 2000])[values] / 4095 * 255)


def display_table_and_window(folder: Path) -> Shown:
    """A display table of eight bits, two entries a word, whose first number is -2, and a window."""
    values = np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.uint16)
    item = table([4, 65534, 8], bytes([10, 20, 30, 40]))
    path = still(
        folder / "voi.dcm", values, RescaleSlope=1, RescaleIntercept=-4, VOILUTSequence=[item], WindowCenter=1,
        WindowWidth=2,
    )  # fmt: skip
    return path, grey(np.array([[10, 10, 10, 20], [30, 40, 40, 40]]))


def table(descriptor: Sequence[int], data: Any) -> Dataset:  # noqa: ANN401 (numbers or bytes)
    """A table of a sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", list(descriptor))
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return item


def palette(folder: Path, descriptor: Sequence[int], dtype: str) -> Shown:
    """Palette of red from dark to light; ``descriptor``: entries, first number mapped and bits."""
    count = descriptor[0] or 2**16
    values = np.array([[0, 1, 5], [9, 200, 255]], np.uint8)
    largest = 2 ** descriptor[2] - 1
    red = np.rint(np.linspace(0, largest, count)).astype(dtype)
    found = dataset(values, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        data = red if colour == "Red" else np.zeros_like(red)
        found.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", list(descriptor))
        found.add_new(f"{colour}PaletteColorLookupTableData", "OW", data.tobytes() + bytes(len(data.tobytes()) % 2))
    found.save_as(folder / "palette.dcm", enforce_file_format=True)
    right = np.zeros((2, 3, 3), np.uint8)
    right[..., 0] = np.rint(red[np.clip(values.astype(int) - descriptor[1], 0, count - 1)] / largest * 255)
    return folder / "palette.dcm", right


def colours() -> NDArray[np.uint8]:
    """``(32, 32, 3)`` smooth colours, of which little is lost in a JPEG."""
    rows, columns = np.mgrid[0:32, 0:32]
    return np.stack([rows * 7 + 20, columns * 7 + 20, 250 - rows * 4], axis=-1).astype(np.uint8)


def jpeg(folder: Path, declared: str, *, stored: str, mark: str, **changes: Any) -> Shown:  # noqa: ANN401
    """JPEG of colours ``stored`` as RGB or YBR behind a header that declares others.

    ``mark`` is ``adobe0``, ``adobe1``, ``adobe2``, ``jfif``, ``names``, ``subsampled`` or ``none``.
    """
    stored_values = colours() if stored == "RGB" else convert_color_space(colours(), "RGB", "YBR_FULL")
    stream = BytesIO()
    # ``keep_rgb`` writes three components as they are, and no mark of JFIF.
    Image.fromarray(stored_values).save(stream, "JPEG", quality=100, keep_rgb=True)
    content = stream.getvalue()
    if mark == "subsampled":
        stream = BytesIO()
        Image.fromarray(colours()).save(stream, "JPEG", quality=100, subsampling=1)
        content = stream.getvalue()
    path = folder / "jpeg.dcm"
    return _framed(path, _marked(content, mark), JPEGBaseline8Bit, declared, changes), colours()


def _marked(content: bytes, mark: str) -> bytes:
    """Replace the marks of a JPEG, and the names of its components."""
    start = bytearray(content)
    at = 2
    while start[at + 1] in {*range(0xE0, 0xF0)}:
        del start[at : at + 2 + int.from_bytes(start[at + 2 : at + 4], "big")]
    names = b"RGB" if mark == "names" else b"\1\2\3"
    for marker, offset in ((0xC0, 10), (0xDA, 5)):
        place = start.index(bytes([0xFF, marker])) + offset
        for number in range(3):
            start[place + number * (3 if marker == 0xC0 else 2)] = names[number]
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"
    marks = {"jfif": b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"}
    marks |= {f"adobe{number}": adobe + bytes([number]) for number in range(3)}
    start[2:2] = marks.get(mark, b"")
    return bytes(start)


def jpeg_2000_transform(folder: Path, declared: str, *, has_transform: bool) -> Shown:
    """JPEG 2000 with or without a transform of its own."""
    ybr = declared.startswith("YBR_FULL") and not has_transform
    values = convert_color_space(colours(), "RGB", "YBR_FULL") if ybr else colours()
    stream = jpeg_2000(values, mct=int(has_transform))
    found = _colour_header(declared, JPEG2000Lossless)
    found.PixelData = stream
    return _save(found, folder / "mct.dcm"), colours()


def lossless_colours(folder: Path, syntax: str, declared: str, **changes: Any) -> Shown:  # noqa: ANN401
    """Colours in a stream without a word on them."""
    values = colours() if declared == "RGB" else convert_color_space(colours(), "RGB", "YBR_FULL")
    found = _colour_header(declared, syntax)
    path = write(found, values, syntax, folder / "lossless.dcm")
    for name, value in changes.items():
        setattr(found, name, value)
    return _save(found, path), colours()


def frames_in_pieces(folder: Path, *, is_extended: bool) -> Shown:
    """Three JPEG 2000 frames, each in two pieces, with an extended offset table or a basic one; the last is meant."""
    frames = [ramp(), 255 - ramp(), ramp() // 2]
    streams = [jpeg_2000(each, quality_mode="rates") for each in frames]
    pure = [_only_piece(stream) for stream in streams]
    found = dataset(frames[0], NumberOfFrames=3, syntax=JPEG2000Lossless)
    if is_extended:
        found.PixelData, found.ExtendedOffsetTable, found.ExtendedOffsetTableLengths = encapsulate_extended(pure)
    else:
        found.PixelData = encapsulate(pure, fragments_per_frame=2, has_bot=True)
    return _save(found, folder / "pieces.dcm"), grey(frames[2])


def compressed_frames(folder: Path, frames: Sequence[NDArray[np.uint8]], syntax: str, pieces: int = 1) -> Path:
    """Frames in RLE or JPEG 2000, each in some pieces, with an offset table."""
    streams = [
        _only_piece(bytes(dcmread(write(dataset(each), each, syntax, folder / "frame.dcm")).PixelData))
        for each in frames
    ]
    found = dataset(frames[0], NumberOfFrames=len(frames), syntax=syntax)
    found.PixelData = encapsulate(streams, fragments_per_frame=pieces, has_bot=True)
    return _save(found, folder / "frames.dcm")


def groups(folder: Path, slopes: Sequence[float] = (1, 2), num_frames: int = 2) -> Shown:
    """Frames whose rescaling differs, and a window for both; the second is meant."""
    frames = np.stack([ramp(np.uint16), ramp(np.uint16)])
    shared, per_frame = Dataset(), []
    window = Dataset()
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = 256, 512, "LINEAR_EXACT"
    shared.FrameVOILUTSequence = [window]
    for slope in slopes:
        rescale, group = Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = slope, 0, "US"
        group.PixelValueTransformationSequence = [rescale]
        per_frame.append(group)
    path = still(
        folder / "groups.dcm", frames, NumberOfFrames=num_frames, SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=per_frame,
    )  # fmt: skip
    return path, grey(np.clip(ramp(np.float64) * slopes[-1] / 512, 0, 1) * 255)


def one_bit_frames(folder: Path) -> Shown:
    """Two frames of 15 pixels of one bit, which share a byte; the second is meant."""
    frames = np.random.default_rng(0).integers(0, 2, (2, 3, 5), np.uint8)
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    path = still(
        folder / "bits.dcm", frames, NumberOfFrames=2, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed
    )
    return path, grey(frames[1] * 255)


def big_endian_words(folder: Path) -> Shown:
    """Eight bits a pixel, an odd number of them, in big-endian words."""
    values = np.arange(15, dtype=np.uint8).reshape(3, 5) * 17
    found = dataset(values)
    path = write(found, values, ExplicitVRBigEndian, folder / "words.dcm")
    found.PixelData = np.frombuffer(values.tobytes() + b"\0", ">u2").astype("<u2").tobytes()
    found["PixelData"].VR = "OW"
    from pydicom import dcmwrite

    dcmwrite(path, found, implicit_vr=False, little_endian=False, force_encoding=True)
    return path, grey(values)


def profile(folder: Path) -> Shown:
    """Colours with a profile that is not sRGB."""
    path, right = lossless_colours(folder, RLELossless, "RGB", ICCProfile=lab_profile())
    return path, right


def lab_profile() -> bytes:
    """A colour profile that is not sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def _only_piece(encapsulated: bytes) -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(encapsulated, 0, number_of_frames=1)


def _framed(path: Path, stream: bytes, syntax: str, declared: str, changes: dict[str, Any]) -> Path:
    found = _colour_header(declared, syntax)
    for name, value in changes.items():
        setattr(found, name, value)
    found.PixelData = encapsulate([stream])
    return _save(found, path)


def _colour_header(declared: str, syntax: str) -> Any:  # noqa: ANN401
    return dataset(
        colours()[..., 0], SamplesPerPixel=3, PhotometricInterpretation=declared, PlanarConfiguration=0, syntax=syntax
    )


def _save(found: Any, path: Path) -> Path:  # noqa: ANN401
    found["PixelData"].VR = "OB"
    found["PixelData"].is_undefined_length = True
    found.save_as(path, enforce_file_format=True)
    return path


LOSSLESS = (RLELossless, JPEGLSLossless, JPEGLosslessSV1)
