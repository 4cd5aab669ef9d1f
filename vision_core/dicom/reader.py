"""Reading of DICOM images as 8-bit RGB, as viewers show them.

No message contains a value of the header that could name a person.
Source: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 and C.11.2 (modality and display values).
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.checks import choose_decoder, find_fault, num_frames
from vision_core.dicom.codestream import JPEG_START, codestream_shape, is_sound_jpeg_header
from vision_core.dicom.display import to_display
from vision_core.dicom.structure import (
    PixelElement,
    data_set_offset,
    find_pixels,
    inflate,
    read_encoding,
    reraise_disk_error,
)
from vision_core.errors import InputError
from vision_core.optional import require

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})

_MAGIC_AT, _MAGIC = 128, b"DICM"
_LOG = logging.getLogger("domainsight")


@dataclass(frozen=True, kw_only=True)
class DicomFacts:
    """Properties of an image from its header, fit for logs: no name, number or date of a person.

    Attributes:
        height: Rows.
        width: Columns.
        num_frames: Frames; 1 for a still.
        modality: Such as CT, MR or US; may be empty.
        patient: A hash that is equal for equal patient numbers; empty where the file has none.
    """

    height: int
    width: int
    num_frames: int
    modality: str
    patient: str


def is_dicom(path: Path) -> bool:
    """Check for the mark of DICOM behind the preamble of 128 bytes."""
    with path.open("rb") as file:
        file.seek(_MAGIC_AT)
        return file.read(len(_MAGIC)) == _MAGIC


def inspect_dicom(path: Path, max_megapixels: float = 100.0) -> DicomFacts:
    """Read the header and check whether the pixels can be decoded.

    Raises:
        InputError: As ``read_dicom_image``.
        OSError: The disk or share failed while reading; trying again may help.
    """
    with _opened(path) as opened:
        frames = _check_pixels(opened, max_megapixels)
        header = opened.header
        number = str(header.get("PatientID", "") or "")
        return DicomFacts(
            height=int(header.Rows),
            width=int(header.Columns),
            num_frames=frames,
            modality=str(header.get("Modality", "") or ""),
            patient=blake2b(number.encode(), digest_size=8).hexdigest() if number.strip() else "",
        )


def read_dicom_image(path: Path, frame: int | None = None, max_megapixels: float = 100.0) -> NDArray[np.uint8]:
    """Read one image by the display values of its header.

    Modality values (rescale or table) go through the file's display table or first window; without either, images of
    up to 8 bits keep their values and others are scaled from their least to largest value, padding left out.
    MONOCHROME1 is inverted, palettes and YBR become RGB, grey is repeated.

    Args:
        path: The file.
        frame: Which frame, from 0; None takes the first, with a warning where there are more.
        max_megapixels: Larger images are refused by their header.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        InputError: The file is missing, not DICOM, damaged, too large, or holds no image that can be decoded here.
        OSError: The disk or share failed while reading; trying again may help.
        MissingDependencyError: pydicom is not installed.
    """
    with _opened(path) as opened:
        frames = _check_pixels(opened, max_megapixels)
        frame = _choose_frame(path, frame, frames)
        stored = _decode(opened, frame)
        try:
            return to_display(stored, opened.header, frame)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError, NotImplementedError) as error:
            raise InputError(f"'{path}' has values or display tables that cannot be used. Export it again.") from error


@dataclass(frozen=True, kw_only=True)
class _OpenFile:
    """Open file whose structure is sound."""

    path: Path
    file: BinaryIO
    header: "Dataset"
    pixels: PixelElement


@contextmanager
def _opened(path: Path) -> Iterator[_OpenFile]:
    _silence_pydicom(require("pydicom", why="DICOM files are read with it"))
    try:
        with path.open("rb") as file:
            yield _open(path, file)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"'{path}' cannot be opened: {(error.strerror or 'no reason given').lower()}.") from error


def _silence_pydicom(pydicom: ModuleType) -> None:
    """Silence pydicom, whose warnings and logs quote names from the header."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    # Once is enough, and every change of the filters makes Python repeat warnings that were shown already.
    if not any(getattr(module, "pattern", None) == "pydicom" for _, _, _, module, _ in warnings.filters):
        warnings.filterwarnings("ignore", module="pydicom")


def _open(path: Path, file: BinaryIO) -> _OpenFile:
    start = file.read(_MAGIC_AT + len(_MAGIC))
    if not start:
        raise InputError(f"'{path}' is empty (0 bytes). Copy or download it again.")
    if start[_MAGIC_AT:] != _MAGIC:
        raise InputError(f"'{path}' is not a DICOM file: the mark 'DICM' at byte 128 is missing. Export it as DICOM.")
    offset = data_set_offset(file, path)
    encoding, is_deflated = read_encoding(path)
    if is_deflated:
        pixels = find_pixels(inflate(path, file, offset), path, 0, encoding)
    else:
        pixels = find_pixels(file, path, offset, encoding)
    header = _read_header(path, file)
    if pixels is None:
        raise InputError(_missing_pixels(path, header))
    return _OpenFile(path=path, file=file, header=header, pixels=pixels)


def _read_header(path: Path, file: BinaryIO) -> "Dataset":
    from pydicom import dcmread

    file.seek(0)
    try:
        return dcmread(file, stop_before_pixels=True)
    except Exception as error:
        reraise_disk_error(error)
        raise InputError(f"'{path}' is damaged: its header cannot be read. Copy or export it again.") from error


def _missing_pixels(path: Path, header: "Dataset") -> str:
    if "Rows" in header:
        return f"'{path}' has the header of an image but no pixels: it is cut off. Copy or export it again."
    return f"'{path}': no image in this object ({_object_type(header)}). Leave it out, or give the image itself."


def _object_type(header: "Dataset") -> str:
    """Read the type of an object without pixels, such as SR: its modality, else its class."""
    modality = str(header.get("Modality", "") or "")
    if modality:
        return modality
    stored = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    return str(stored.name) if stored is not None else "of unknown kind"


def _check_pixels(opened: _OpenFile, max_megapixels: float) -> int:
    """Return the number of frames, if they can be decoded."""
    fault = find_fault(opened.header, opened.pixels, max_megapixels)
    if fault:
        raise InputError(f"'{opened.path}' {fault}")
    return num_frames(opened.header)


def _choose_frame(path: Path, frame: int | None, frames: int) -> int:
    if frame is None and frames > 1:
        _LOG.warning("'%s' holds %d frames; the first is used.", path, frames)
    if frame is not None and not 0 <= frame < frames:
        raise InputError(f"'{path}' holds '{frames}' frames, counted from 0; there is no frame '{frame}'.")
    return frame or 0


def _decode(opened: _OpenFile, frame: int) -> NDArray[Any]:
    """Decode the stored values, ``(H, W)`` or ``(H, W, 3)``, YBR converted to RGB."""
    from pydicom import dcmread
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    opened.file.seek(0)
    try:
        whole, decoder = dcmread(opened.file), ""
        if opened.pixels.num_fragments is not None:
            compressed = get_frame(whole.PixelData, frame, number_of_frames=num_frames(whole))
            _check_codestream_shape(opened, compressed)
            decoder = choose_decoder(opened.header, compressed)
            _refuse_damaged_jpeg(opened, compressed, decoder)
        return np.asarray(pixel_array(whole, index=frame, decoding_plugin=decoder))
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reraise_disk_error(error)
        raise InputError(f"'{opened.path}' has pixels that cannot be decoded. Copy or export it again.") from error


def _check_codestream_shape(opened: _OpenFile, compressed: bytes) -> None:
    found, header = codestream_shape(compressed), opened.header
    declared = int(header.Rows), int(header.Columns), int(header.SamplesPerPixel)
    if found not in {None, declared}:
        raise InputError(
            f"'{opened.path}' declares '{declared}' rows, columns and samples, its compressed image '{found}'. "
            "Export it again."
        )


def _refuse_damaged_jpeg(opened: _OpenFile, compressed: bytes, decoder: str) -> None:
    """Refuse JPEG headers at which GDCM ends the process."""
    if decoder != "pillow" and compressed.startswith(JPEG_START) and not is_sound_jpeg_header(compressed):
        raise InputError(f"'{opened.path}' has pixels with a damaged JPEG header. Copy or export it again.")
