"""Files to predict: an image, a DICOM still or cine, an HDF5 file of frames; decoded in a child process, as they come.

HDF5 is read in this process: its layout is checked, and its links are refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.folders import read_grey
from pipelines.ultrasound.data.frames import MAX_MEGAPIXELS, Grey, grey_of, white_of
from pipelines.ultrasound.data.hdf5 import H5Frames
from pipelines.ultrasound.data.lists import HDF5_SUFFIXES
from vision_core.dicom.reader import DICOM_SUFFIXES, inspect_dicom, is_dicom
from vision_core.errors import DataError, InputError
from vision_core.images.reading import is_image_name, list_files
from vision_core.images.untrusted import UntrustedImages

_GREY = "pipelines.ultrasound.data.files:grey_in_child"


@dataclass(frozen=True, kw_only=True)
class FrameFile:
    """Frames of one file.

    Attributes:
        texts: Name of each frame, such as ``cine.dcm#3``.
        read: Reads the frame of a number: ``(H, W)`` grey.
        notes: Remarks on the file, a sentence each.
        spacing_mm: Height and width of a pixel; None where it is not known.
    """

    texts: tuple[str, ...]
    read: Callable[[int], Grey]
    notes: tuple[str, ...] = ()
    spacing_mm: tuple[float, float] | None = None


def open_file(path: Path, reader: UntrustedImages) -> FrameFile:
    """Open a file of frames.

    Raises:
        InputError: It is of no known kind, or damaged.
    """
    if path.suffix.lower() in HDF5_SUFFIXES:
        return _open_hdf5(path)
    if not is_dicom_input(path):
        return FrameFile(texts=(path.name,), read=lambda _: _grey(path, reader))
    facts = inspect_dicom(path, MAX_MEGAPIXELS)
    count = facts.num_frames
    texts = (path.name,) if count == 1 else tuple(f"{path.name}#{number}" for number in range(count))
    told = (*facts.notes, *filter(None, [facts.spacing.reason]))
    return FrameFile(
        texts=texts,
        read=lambda number: grey_of(reader.cine_frame(path, number)[0]),
        notes=tuple(f"The file {note}." for note in told),
        spacing_mm=facts.spacing.mm,
    )


def is_dicom_input(path: Path) -> bool:
    """Tell whether a file is read as DICOM: it is called neither an image nor HDF5."""
    return not (is_image_name(path.name) or path.suffix.lower() in HDF5_SUFFIXES)


def list_inputs(folder: Path) -> list[Path]:
    """List the images, DICOM files and HDF5 files of ``folder`` itself, sorted by name.

    Raises:
        DataError: There is none, or no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"--input '{folder}' is not a folder. Give a file, or a folder of files.")
    found = [path for path in list_files(folder, lambda name: name.upper() != "DICOMDIR") if _is_input(path)]
    if not found:
        names = [path.name for path in sorted(folder.iterdir())[:4]]
        raise DataError(
            f"'{folder}' holds '0' images, DICOM or HDF5 files (first entries: {', '.join(names) or 'none'}). "
            "Give the folder that the files themselves lie in."
        )
    return found


def grey_in_child(path: Path) -> tuple[Mapping[str, NDArray[Any]], None]:
    """Read an image as the sandbox answers."""
    return {"": read_grey(path)}, None


def _is_input(path: Path) -> bool:
    if is_image_name(path.name) or path.suffix.lower() in (*HDF5_SUFFIXES, *DICOM_SUFFIXES):
        return True
    try:
        return is_dicom(path)  # files of series often have numbers for suffixes
    except OSError:
        return False


def _grey(path: Path, reader: UntrustedImages) -> Grey:
    image = reader.sandbox.run(_GREY, path).array
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"'{path}' was not decoded to a grey image. Save it again as PNG.")
    white_of(image, f"'{path}'")
    return image


def _open_hdf5(path: Path) -> FrameFile:
    try:
        frames = H5Frames(path, allow_unlabelled=True)
    except InputError:
        raise
    except DataError as error:
        raise InputError(error.problems) from error  # one of many inputs here
    texts = tuple(name.text for name in frames.names)
    return FrameFile(texts=texts, read=lambda number: frames.read(number).image, notes=frames.notes)
