"""Reading of DICOM images as 8-bit RGB, as viewers show them.

No message contains a value of the header that could name a person.
Source: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 and C.11.2 (modality and display values).
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.checks import find_fault
from vision_core.dicom.cine import FramePixels
from vision_core.dicom.decoding import Stored, decode_frame
from vision_core.dicom.display import OTHER_PROFILE, full_range, is_other_profile, read_grey_display, to_display
from vision_core.dicom.header import UnfitError, frame_times, is_signed, num_frames
from vision_core.dicom.spacing import Spacing, cine_spacing, pixel_ratio, stack_place
from vision_core.dicom.structure import (
    data_set_offset,
    find_pixels,
    inflate,
    read_encoding,
    reraise_disk_error,
)
from vision_core.dicom.tables import read_palette
from vision_core.dicom.view import ImageView, read_facts, read_values
from vision_core.errors import InputError
from vision_core.optional import require

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})

_MAGIC_AT, _MAGIC = 128, b"DICM"
NAMES_PATIENT = "has the patient's name or number in its own name"
_MACHINE_LETTERS = 64
_TELLING = 3  # letters: shorter parts of a name stand in many words
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
        instance: The same of the number of this file (SOPInstanceUID).
        machine: Manufacturer and model; empty where the file states neither.
        notes: What the header leaves open about the picture; each begins with the file's name.
        spacing: Size of a pixel, or why it is not known.
        times_ms: When each frame begins, from the first; None where it is not known.
        place: ``(4, 4)`` takes column, row, frame and 1 to mm in the patient (see ``stack_place``); None without.
    """

    height: int
    width: int
    num_frames: int
    modality: str
    patient: str
    instance: str = ""
    machine: str = ""
    notes: tuple[str, ...] = ()
    spacing: Spacing
    times_ms: tuple[float, ...] | None = None
    place: NDArray[np.float64] | None = field(default=None, compare=False)


def is_dicom(path: Path) -> bool:
    """Check for the mark of DICOM behind the preamble of 128 bytes."""
    with path.open("rb") as file:
        file.seek(_MAGIC_AT)
        return file.read(len(_MAGIC)) == _MAGIC


def inspect_dicom(path: Path, max_megapixels: float = 100.0, *, key: str = "") -> DicomFacts:
    """Read the header and check whether the pixels can be decoded and shown.

    Raises:
        InputError: As ``read_dicom_image``.
        OSError: The disk or share failed while reading; trying again may help.
    """
    with _opened(path) as opened:
        frames, notes = _check_pixels(opened, max_megapixels, key)
        header = opened.header
        return DicomFacts(
            height=int(header.Rows),
            width=int(header.Columns),
            num_frames=frames,
            modality=str(header.get("Modality", "") or ""),
            patient=hashed_number(str(header.get("PatientID", "") or "")),
            instance=hashed_number(str(header.get("SOPInstanceUID", "") or "")),
            machine=_machine(header),
            notes=(*notes, *_notes(path, header)),
            spacing=cine_spacing(header),
            times_ms=frame_times(header) if frames > 1 else None,
            place=stack_place(header),
        )


def hashed_number(number: str) -> str:
    """Hash the number of a patient or a file, which no log may hold; empty for none."""
    return blake2b(number.encode(), digest_size=8).hexdigest() if number.strip() else ""


def read_dicom_image(
    path: Path, frame: int | None = None, max_megapixels: float = 100.0, *, key: str = ""
) -> NDArray[np.uint8]:
    """Read one image by the display values of its header; what was decided for it is a warning.

    Modality values (rescale or table) go through the file's display table or first window; without either, images of
    up to 8 bits keep their values and others are scaled from their least to largest value. Padding is left out and
    becomes black. MONOCHROME1 is inverted, palettes and YBR become RGB, grey is repeated.

    Args:
        path: The file.
        frame: Which frame, from 0; None takes the first, with a warning where there are more.
        max_megapixels: Larger images are refused by their header.
        key: Setting of the running verb that raises this limit, for the message; empty: it has none.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        InputError: The file is missing, not DICOM, damaged, too large, or holds no image that can be decoded here.
        OSError: The disk or share failed while reading; trying again may help.
        MissingDependencyError: pydicom is not installed.
    """
    pixels, notes = read_noted_dicom(path, frame, max_megapixels, key=key)
    for note in notes:
        _LOG.warning("'%s' %s.", path, note)
    return pixels


def read_noted_dicom(
    path: Path, frame: int | None = None, max_megapixels: float = 100.0, *, key: str = ""
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Read one image as ``read_dicom_image``; returns it with notes, which begin with the file's name."""
    with open_cine(path, max_megapixels, key=key) as cine:
        pixels, told = cine.read(_choose_frame(path, frame, cine.num_frames))
        return pixels, (*(_frame_note(cine.num_frames) if frame is None else ()), *told)


class Cine:
    """Open file whose frames are read one at a time; see ``open_cine``.

    Attributes:
        num_frames: Frames; 1 for a still.
    """

    def __init__(self, opened: "_OpenFile", num_frames: int) -> None:
        self._opened, self.num_frames = opened, num_frames

    def read(self, frame: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Read a frame as ``read_noted_dicom``, with notes; only its own pixels are read from the file."""
        path, header = self._opened.path, self._opened.header
        stored = _decode(self._opened, _choose_frame(path, frame, self.num_frames))
        with _unusable(path):
            pixels, told = to_display(stored, header, frame)
        return pixels, (*stored.notes, *told, *_notes(path, header))

    def notes(self) -> tuple[str, ...]:
        """Tell what the pixels of the first frame show against the header, as frames that it does not declare.

        Raises:
            InputError: It cannot be decoded.
        """
        return _decode(self._opened, 0).notes

    def read_full(self, frame: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Read a frame for a network: grey of 9 to 16 bits as ``(H, W)`` by ``full_range``, others as ``read``."""
        path, header = self._opened.path, self._opened.header
        stored = _decode(self._opened, _choose_frame(path, frame, self.num_frames))
        with _unusable(path):
            grey = full_range(stored, header, frame)
            return to_display(stored, header, frame)[0] if grey is None else grey


@contextmanager
def open_cine(path: Path, max_megapixels: float = 100.0, *, key: str = "") -> Iterator[Cine]:
    """Open a file once for many frames: header and structure are read and checked here; raises as ``inspect_dicom``."""
    with _opened(path) as opened:
        frames, _ = _check_pixels(opened, max_megapixels, key)
        yield Cine(opened, frames)


@contextmanager
def _unusable(path: Path) -> Iterator[None]:
    """Turn what damaged display tables raise into an error of the input."""
    try:
        yield
    except UnfitError as error:
        raise InputError(f"'{path}' {error}") from error
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, NotImplementedError) as error:
        raise InputError(f"'{path}' has values or display tables that cannot be used. Export it again.") from error


def read_dicom_view(path: Path, max_megapixels: float = 100.0) -> tuple[ImageView, tuple[str, ...]]:
    """Read the first image with what a viewer needs beyond the picture; returns it with notes.

    Raises:
        InputError: As ``read_dicom_image``.
        OSError: The disk or share failed while reading; trying again may help.
    """
    with _opened(path) as opened:
        frames, _ = _check_pixels(opened, max_megapixels, "")
        stored, header = _decode(opened, 0), opened.header
        with _unusable(path):
            pixels, told = to_display(stored, header, 0)
            view = ImageView(pixels=pixels, values=read_values(stored, header, 0), facts=read_facts(header, 0))
        return view, (*_frame_note(frames), *stored.notes, *told, *_notes(path, header))


def _machine(header: "Dataset") -> str:
    words = [str(header.get(name, "") or "").split() for name in ("Manufacturer", "ManufacturerModelName")]
    return " ".join(" ".join(each) for each in words if each)[:_MACHINE_LETTERS]


def _frame_note(frames: int) -> tuple[str, ...]:
    return (f"holds {frames} frames; the first is used",) if frames > 1 else ()


def _notes(path: Path, header: "Dataset") -> tuple[str, ...]:
    return (*_shape_notes(header), *_name_notes(path, header))


def _name_notes(path: Path, header: "Dataset") -> tuple[str, ...]:
    """Tell that the file's name, after which outputs are named, holds the patient's name or number."""
    words = [*re.split(r"[\^=\s]+", str(header.get("PatientName", "") or "")), str(header.get("PatientID", "") or "")]
    told = [re.sub(r"\W", "", word).casefold() for word in words]
    name = re.sub(r"\W", "", path.stem).casefold()
    if any(len(word) >= _TELLING and word in name for word in told):
        return (f"{NAMES_PATIENT}, after which outputs are named; rename it",)
    return ()


def _shape_notes(header: "Dataset") -> tuple[str, ...]:
    """Tell what viewers show otherwise: pixels that are no squares, colours by a profile, shutters, subtraction."""
    notes = []
    ratio = pixel_ratio(header)
    if ratio is not None:
        notes.append(f"has pixels of the height {ratio[0]:g} and the width {ratio[1]:g}; they are read as squares")
    if header.get("ShutterShape"):
        notes.append("has a shutter, which viewers lay over the picture; it is not applied")
    if header.get("MaskSubtractionSequence") and str(header.get("RecommendedViewingMode", "") or "") == "SUB":
        notes.append("is meant to be seen minus a mask (DSA); it is shown as it was taken")
    if is_other_profile(header.get("ICCProfile")):
        notes.append(OTHER_PROFILE)
    return tuple(notes)


@dataclass(frozen=True, kw_only=True)
class _OpenFile:
    """Open file whose structure is sound."""

    path: Path
    header: "Dataset"
    pixels: FramePixels


@contextmanager
def _opened(path: Path) -> Iterator[_OpenFile]:
    silence_pydicom(require("pydicom", why="DICOM files are read with it"))
    try:
        with path.open("rb") as file:
            yield _open(path, file)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"'{path}' cannot be opened: {(error.strerror or 'no reason given').lower()}.") from error


def silence_pydicom(pydicom: ModuleType) -> None:
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
        content: BinaryIO = inflate(path, file, offset)
        pixels = find_pixels(content, path, 0, encoding)
    else:
        content = file
        pixels = find_pixels(file, path, offset, encoding)
    header = _read_header(path, file)
    if pixels is None:
        raise InputError(_missing_pixels(path, header))
    return _OpenFile(path=path, header=header, pixels=FramePixels(content, header, pixels))


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


def _check_pixels(opened: _OpenFile, max_megapixels: float, key: str) -> tuple[int, tuple[str, ...]]:
    """Return the number of frames, if they can be decoded and shown, and notes on the display of the first."""
    header = opened.header
    notes: tuple[str, ...] = ()
    try:
        header.NumberOfFrames = num_frames(header)  # some files write it as text
        if fault := find_fault(header, opened.pixels.element, max_megapixels, key):
            raise UnfitError(fault)
        if str(header.PhotometricInterpretation).startswith("MONOCHROME"):
            notes = read_grey_display(header, 0).notes
        elif header.PhotometricInterpretation == "PALETTE COLOR":
            read_palette(header, has_sign=is_signed(header))
    except UnfitError as error:
        raise InputError(f"'{opened.path}' {error}") from error
    return num_frames(header), notes


def _choose_frame(path: Path, frame: int | None, frames: int) -> int:
    if frame is not None and not 0 <= frame < frames:
        raise InputError(f"'{path}' holds '{frames}' frames, counted from 0; there is no frame '{frame}'.")
    return frame or 0


def _decode(opened: _OpenFile, frame: int) -> Stored:
    try:
        return decode_frame(opened.pixels, frame)
    except MemoryError:
        raise
    except UnfitError as error:
        raise InputError(f"'{opened.path}' {error}") from error
    except Exception as error:
        reraise_disk_error(error)
        raise InputError(f"'{opened.path}' has pixels that cannot be decoded. Copy or export it again.") from error
