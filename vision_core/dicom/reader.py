"""Still images of DICOM files in, 8-bit RGB arrays out, as a viewer would show them; every refusal named.

No message holds a value of the header that could name a person.
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

from vision_core.dicom.checks import decoder_of, fault_of, num_frames
from vision_core.dicom.codestream import JPEG_START, codestream_shape, is_sound_jpeg_header
from vision_core.dicom.display import to_display
from vision_core.dicom.structure import (
    PixelElement,
    end_of_meta,
    find_pixels,
    inflate,
    raise_of_disk,
    read_encoding,
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
    """What a header tells of an image, fit for logs: no name, number or date of a person.

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
    """Whether the file carries the mark of DICOM, which stands behind a preamble of 128 bytes."""
    with path.open("rb") as file:
        file.seek(_MAGIC_AT)
        return file.read(len(_MAGIC)) == _MAGIC


def inspect_dicom(path: Path, max_megapixels: float = 100.0) -> DicomFacts:
    """Read the header and check that the pixels are there and can be decoded, without decoding them.

    Raises:
        InputError: As ``read_dicom_image``.
        OSError: The disk or share failed while reading; trying again may help.
    """
    with _opened(path) as opened:
        frames = _checked(opened, max_megapixels)
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
    """Read one image as it is meant to be seen.

    The rules: modality values (rescale or table), then the file's table or first window; without either, images of up
    to 8 bits keep their values and others span their least to largest value, padding left out. MONOCHROME1 is
    inverted, palettes and YBR become RGB, grey is repeated.

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
        frames = _checked(opened, max_megapixels)
        frame = _chosen(path, frame, frames)
        stored = _decode(opened, frame)
        try:
            return to_display(stored, opened.header, frame)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError, NotImplementedError) as error:
            raise InputError(f"'{path}' has values or display tables that cannot be used. Export it again.") from error


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A file whose structure is sound."""

    path: Path
    file: BinaryIO
    header: "Dataset"
    pixels: PixelElement


@contextmanager
def _opened(path: Path) -> Iterator[_Opened]:
    _silence(require("pydicom", why="DICOM files are read with it"))
    try:
        with path.open("rb") as file:
            yield _open(path, file)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"'{path}' cannot be opened: {(error.strerror or 'no reason given').lower()}.") from error


def _silence(pydicom: ModuleType) -> None:
    """What pydicom warns of and logs quotes values of the header, names among them."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    # Once is enough, and every change of the filters makes Python repeat warnings that were shown already.
    if not any(getattr(module, "pattern", None) == "pydicom" for _, _, _, module, _ in warnings.filters):
        warnings.filterwarnings("ignore", module="pydicom")


def _open(path: Path, file: BinaryIO) -> _Opened:
    _refuse_foreign(path, file)
    start = end_of_meta(file, path)
    encoding, is_deflated = read_encoding(path)
    if is_deflated:
        pixels = find_pixels(inflate(path, file, start), path, 0, encoding)
    else:
        pixels = find_pixels(file, path, start, encoding)
    header = _header(path, file)
    if pixels is None:
        raise InputError(_without_pixels(path, header))
    return _Opened(path=path, file=file, header=header, pixels=pixels)


def _refuse_foreign(path: Path, file: BinaryIO) -> None:
    start = file.read(_MAGIC_AT + len(_MAGIC))
    if not start:
        raise InputError(f"'{path}' is empty (0 bytes). Copy or download it again.")
    if start[_MAGIC_AT:] != _MAGIC:
        raise InputError(f"'{path}' is not a DICOM file: the mark 'DICM' at byte 128 is missing. Export it as DICOM.")


def _header(path: Path, file: BinaryIO) -> "Dataset":
    from pydicom import dcmread

    file.seek(0)
    try:
        return dcmread(file, stop_before_pixels=True)
    except Exception as error:
        raise_of_disk(error)
        raise InputError(f"'{path}' is damaged: its header cannot be read. Copy or export it again.") from error


def _without_pixels(path: Path, header: "Dataset") -> str:
    if "Rows" in header:
        return f"'{path}' has the header of an image but no pixels: it is cut off. Copy or export it again."
    return f"'{path}': no image in this object ({_kind(header)}). Leave it out, or give the image itself."


def _kind(header: "Dataset") -> str:
    """What an object without pixels is, such as SR: its modality, else its class."""
    modality = str(header.get("Modality", "") or "")
    if modality:
        return modality
    stored = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    return str(stored.name) if stored is not None else "of unknown kind"


def _checked(opened: _Opened, max_megapixels: float) -> int:
    """The number of frames, if they can be decoded."""
    fault = fault_of(opened.header, opened.pixels, max_megapixels)
    if fault:
        raise InputError(f"'{opened.path}' {fault}")
    return num_frames(opened.header)


def _chosen(path: Path, frame: int | None, frames: int) -> int:
    if frame is None and frames > 1:
        _LOG.warning("'%s' holds %d frames; the first is used.", path, frames)
    if frame is not None and not 0 <= frame < frames:
        raise InputError(f"'{path}' holds '{frames}' frames, counted from 0; there is no frame '{frame}'.")
    return frame or 0


def _decode(opened: _Opened, frame: int) -> NDArray[Any]:
    """Stored values ``(H, W)`` or ``(H, W, 3)``, YBR turned to RGB."""
    from pydicom import dcmread
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    opened.file.seek(0)
    try:
        whole, decoder = dcmread(opened.file), ""
        if opened.pixels.num_fragments is not None:
            compressed = get_frame(whole.PixelData, frame, number_of_frames=num_frames(whole))
            _refuse_other_shape(opened, compressed)
            decoder = decoder_of(opened.header, compressed)
            _refuse_what_crashes(opened, compressed, decoder)
        return np.asarray(pixel_array(whole, index=frame, decoding_plugin=decoder))
    except InputError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        raise_of_disk(error)
        raise InputError(f"'{opened.path}' has pixels that cannot be decoded. Copy or export it again.") from error


def _refuse_other_shape(opened: _Opened, compressed: bytes) -> None:
    found, header = codestream_shape(compressed), opened.header
    declared = int(header.Rows), int(header.Columns), int(header.SamplesPerPixel)
    if found not in {None, declared}:
        raise InputError(
            f"'{opened.path}' declares '{declared}' rows, columns and samples, its compressed image '{found}'. "
            "Export it again."
        )


def _refuse_what_crashes(opened: _Opened, compressed: bytes, decoder: str) -> None:
    """GDCM ends the process where it meets other bytes instead of a marker, or a precision nobody has."""
    if decoder != "pillow" and compressed.startswith(JPEG_START) and not is_sound_jpeg_header(compressed):
        raise InputError(f"'{opened.path}' has pixels with a damaged JPEG header. Copy or export it again.")
