"""The museum of bad DICOM files: code that makes each of them, one function per row of the catalogue.

Every file names a person, whom no message may repeat.
"""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import FileDataset
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    generate_uid,
)

PERSON = "Secret^Person"
NUMBER = "HOSPITAL-4711"

_UNDEFINED = 0xFFFFFFFF


def still(path: Path, pixels: NDArray[Any] | None = None, **changes: Any) -> Path:  # noqa: ANN401 (values of elements)
    """Write a sound CT slice of ``(H, W)`` pixels, or one whose elements differ as told; None removes one."""
    return _save(dataset(pixels, **changes), path)


def dataset(pixels: NDArray[Any] | None = None, **changes: Any) -> FileDataset:  # noqa: ANN401
    """The data set of ``still``."""
    pixels = ramp() if pixels is None else pixels
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["still"])
    meta.TransferSyntaxUID = changes.pop("syntax", ExplicitVRLittleEndian)
    found = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    found.PatientName, found.PatientID = PERSON, NUMBER
    found.SOPClassUID, found.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    found.Modality = "CT"
    found.Rows, found.Columns = pixels.shape[-2:]
    found.SamplesPerPixel = 1
    found.PhotometricInterpretation = "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    found.PixelData = pixels.tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(found, name)
        else:
            setattr(found, name, value)
    return found


def ramp(dtype: type[np.generic] = np.uint8) -> NDArray[Any]:
    """``(16, 16)`` values from 0 to 255."""
    return np.arange(256).reshape(16, 16).astype(dtype)


def f01_text(folder: Path) -> Path:
    """Words under the name of an image."""
    path = folder / "note.dcm"
    path.write_text("not an image at all " * 20)
    return path


def f01_without_mark(folder: Path) -> Path:
    """A data set without preamble and mark, which only ``force`` would read."""
    path = still(folder / "bare.dcm")
    path.write_bytes(path.read_bytes()[132:])
    return path


def f01_empty(folder: Path) -> Path:
    """A file of no bytes."""
    path = folder / "empty.dcm"
    path.touch()
    return path


def f02_huge(folder: Path) -> Path:
    """60 000 x 60 000 pixels by its header, 256 bytes of them there."""
    return still(folder / "huge.dcm", Rows=60_000, Columns=60_000)


def f02_larger_than_its_data(folder: Path) -> Path:
    """Four times the pixels that are there."""
    return still(folder / "larger.dcm", Rows=32, Columns=32)


def f02_many_frames(folder: Path) -> Path:
    """A billion frames by its header, one there."""
    return still(folder / "frames.dcm", NumberOfFrames=1_000_000_000)


def f02_larger_codestream(folder: Path) -> Path:
    """A compressed picture of 3 000 x 2 000 pixels behind a header of 16 x 16."""
    stream = BytesIO()
    Image.new("L", (3000, 2000)).save(stream, format="JPEG")
    return _compressed(folder / "stream.dcm", JPEGBaseline8Bit, stream.getvalue())


def f02_larger_codestream_2000(folder: Path) -> Path:
    """The same in JPEG 2000."""
    stream = BytesIO()
    Image.new("L", (3000, 2000)).save(stream, format="JPEG2000")
    return _compressed(folder / "stream2000.dcm", JPEG2000Lossless, stream.getvalue())


def f02_many_compressed_frames(folder: Path) -> Path:
    """A billion compressed frames by its header, one piece there."""
    return _compressed(folder / "pieces.dcm", JPEG2000Lossless, NumberOfFrames=1_000_000_000)


def f04_report(folder: Path) -> Path:
    """A structured report: no image."""
    return still(folder / "report.dcm", Modality="SR", PixelData=None, Rows=None, Columns=None)


def f04_directory(folder: Path) -> Path:
    """The index of a disc."""
    return _copied("DICOMDIR", folder / "DICOMDIR")


def f04_waveform(folder: Path) -> Path:
    """An electrocardiogram."""
    return _copied("waveform_ecg.dcm", folder / "ecg.dcm")


def f05_truncated(folder: Path) -> Path:
    """A file cut off in its pixels."""
    return _cut(still(folder / "cut.dcm"), 100)


def f05_truncated_compressed(folder: Path) -> Path:
    """A file cut off in its compressed pixels."""
    return _cut(_copied("JPEG2000.dcm", folder / "cut_jpeg2000.dcm"), 100)


def f05_without_pixels(folder: Path) -> Path:
    """A file cut off before its pixels."""
    return still(folder / "headless.dcm", PixelData=None)


def f05_truncated_deflated(folder: Path) -> Path:
    """A deflated file cut off."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    return _cut(still(folder / "cut_deflated.dcm", noise, syntax=DeflatedExplicitVRLittleEndian), 500)


def f06_lossless_jpeg(folder: Path) -> Path:
    """A 12-bit picture in lossless JPEG, first-order prediction (...4.70), as archives send it."""
    path = still(folder / "lossless.dcm", _twelve_bits(), BitsStored=12, HighBit=11)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path


def f06_crashing(folder: Path) -> Path:
    """Lossless JPEG whose colour transform is none that exists: GDCM 3.2.6 ends the process."""
    path = _copied("SC_rgb_jpeg_gdcm.dcm", folder / "crashing.dcm")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"Adobe\0d") + 11] = 11
    path.write_bytes(content)
    return path


def f06_odd_precision(folder: Path) -> Path:
    """Lossless JPEG of 59 bits a sample, by its own header."""
    path = f06_lossless_jpeg(folder)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"\xff\xc3\0\x0b") + 4] = 59
    path.write_bytes(content)
    return path


def f06_no_marker(folder: Path) -> Path:
    """Lossless JPEG with another byte where a marker should begin."""
    path = f06_lossless_jpeg(folder)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"\xff\xc4")] = 38
    path.write_bytes(content)
    return path


def f07_high_throughput(folder: Path) -> Path:
    """High-throughput JPEG 2000, which the installed decoders cannot read."""
    return _compressed(folder / "fast.dcm", HTJ2KLossless)


def f07_video(folder: Path) -> Path:
    """MPEG-4: a video, not a still."""
    return _compressed(folder / "video.dcm", "1.2.840.10008.1.2.4.102")


def f09_nested(folder: Path) -> Path:
    """1 500 sequences in each other, without lengths."""
    start = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, _UNDEFINED) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, _UNDEFINED
    )
    end = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return _before_pixels(still(folder / "nested.dcm"), start * 1500 + end * 1500)


def f09_nested_with_lengths(folder: Path) -> Path:
    """1 500 sequences in each other, with lengths, in implicit value representation."""
    inner = b""
    for _ in range(1500):
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
        inner = struct.pack("<HHL", 0x0040, 0xA730, len(item)) + item
    return _before_pixels(still(folder / "nested_implicit.dcm", syntax=ImplicitVRLittleEndian), inner)


def f09_nested_unknown(folder: Path) -> Path:
    """1 500 sequences in each other, of unknown kind."""
    start = struct.pack("<HH2sHL", 0x0041, 0x1010, b"UN", 0, _UNDEFINED) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, _UNDEFINED
    )
    deeper = struct.pack("<HHL", 0x0041, 0x1010, _UNDEFINED) + struct.pack("<HHL", 0xFFFE, 0xE000, _UNDEFINED)
    end = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return _before_pixels(still(folder / "nested_unknown.dcm"), start + deeper * 1499 + end * 1500)


def f10_no_length(folder: Path) -> Path:
    """Plain bytes whose length is given as 0xFFFFFFFF."""
    element = struct.pack("<HH2sHL", 0x0042, 0x0011, b"OB", 0, _UNDEFINED) + b"words"
    return _before_pixels(still(folder / "endless.dcm"), element)


def f10_beyond_the_file(folder: Path) -> Path:
    """An element of two billion bytes in a file of one thousand."""
    element = struct.pack("<HH2sHL", 0x0042, 0x0011, b"OB", 0, 2_000_000_000) + b"words"
    return _before_pixels(still(folder / "beyond.dcm"), element)


def f11_deflate_bomb(folder: Path) -> Path:
    """A deflated file of a megabyte that grows to more than 256."""
    path = still(folder / "bomb.dcm", syntax=DeflatedExplicitVRLittleEndian)
    start = path.read_bytes().index(DeflatedExplicitVRLittleEndian.encode()) + len(DeflatedExplicitVRLittleEndian)
    pack = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    header = struct.pack("<HH2sHL", 0x0042, 0x0011, b"OB", 0, 2**28)
    packed = pack.compress(header) + b"".join(pack.compress(bytes(2**20)) for _ in range(2**8)) + pack.flush()
    path.write_bytes(path.read_bytes()[: start + start % 2] + packed)
    return path


def f12_stored_above_allocated(folder: Path) -> Path:
    """Twelve stored bits in eight."""
    return still(folder / "bits.dcm", BitsStored=12, HighBit=11)


def f12_high_bit(folder: Path) -> Path:
    """Twelve stored bits that begin at the top of sixteen."""
    return still(folder / "high.dcm", _twelve_bits(), BitsStored=12, HighBit=15)


def f12_signed(folder: Path) -> Path:
    """Signed values from -128 to 127."""
    return still(folder / "signed.dcm", (ramp(np.int16) - 128).astype(np.int16))


def f24_float(folder: Path) -> Path:
    """Floating-point pixels."""
    return _floating(folder / "float.dcm", "FloatPixelData", np.float32)


def f24_double(folder: Path) -> Path:
    """Pixels of double precision."""
    return _floating(folder / "double.dcm", "DoubleFloatPixelData", np.float64)


def f24_not_finite(folder: Path) -> Path:
    """Floating-point pixels, one of which is no number."""
    pixels = ramp(np.float32)
    pixels[3, 3] = np.nan
    return _floating(folder / "nan.dcm", "FloatPixelData", np.float32, pixels)


def f24_thirty_two_bits(folder: Path) -> Path:
    """Whole pixels of 32 bits."""
    return still(folder / "wide.dcm", ramp(np.uint32) * 10**7)


def f25_no_rows(folder: Path) -> Path:
    """An image that does not tell its height."""
    return still(folder / "rows.dcm", Rows=None)


def f25_no_syntax(folder: Path) -> Path:
    """A file that does not tell how it is written."""
    return _copied("meta_missing_tsyntax.dcm", folder / "syntax.dcm")


def _twelve_bits() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 4096, (16, 16)).astype(np.uint16)


def _save(found: Dataset, path: Path) -> Path:
    found.save_as(path, enforce_file_format=True)
    return path


def _compressed(path: Path, syntax: str, frame: bytes = bytes(64), **changes: Any) -> Path:  # noqa: ANN401
    found = dataset(syntax=syntax, **changes)
    found.PixelData = encapsulate([frame])
    found["PixelData"].VR = "OB"
    found["PixelData"].is_undefined_length = True
    return _save(found, path)


def _floating(path: Path, name: str, dtype: type[np.floating[Any]], pixels: NDArray[Any] | None = None) -> Path:
    pixels = (ramp(dtype) / 255) if pixels is None else pixels
    changes: dict[str, Any] = {"PixelData": None, "BitsStored": None, "HighBit": None, "PixelRepresentation": None}
    return still(path, pixels, **changes, **{name: pixels.astype(dtype).tobytes()})


def _copied(name: str, path: Path) -> Path:
    path.write_bytes(Path(str(get_testdata_file(name))).read_bytes())
    return path


def _cut(path: Path, num_bytes: int) -> Path:
    path.write_bytes(path.read_bytes()[:-num_bytes])
    return path


def _before_pixels(path: Path, inserted: bytes) -> Path:
    content = path.read_bytes()
    at = content.rindex(b"\xe0\x7f\x10\x00")
    path.write_bytes(content[:at] + inserted + content[at:])
    return path
