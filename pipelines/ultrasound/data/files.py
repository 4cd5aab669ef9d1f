"""Files to predict: an image, DICOM, NIfTI, a video, an HDF5 file of frames; decoded in a child process, as they come.

HDF5 is read in this process: its layout is checked, and its links are refused.
"""

from collections.abc import Callable, Iterable, Mapping
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
from vision_core.images.nifti import MAX_EDGE, NIFTI_SUFFIXES, NiftiFrames
from vision_core.images.reading import is_image_name, list_files
from vision_core.images.untrusted import UntrustedImages
from vision_core.images.video import VIDEO_SUFFIXES, VideoFrames

_GREY = "pipelines.ultrasound.data.files:grey_in_child"
_NO_SPACING = "states no size of its pixels; sizes are in pixels"
_FACTS = "pipelines.ultrasound.data.files:facts_in_child"
_FRAME = "pipelines.ultrasound.data.files:frame_in_child"
_OTHERS = (*HDF5_SUFFIXES, *NIFTI_SUFFIXES, *VIDEO_SUFFIXES)


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
    if _has_suffix(path, (*NIFTI_SUFFIXES, *VIDEO_SUFFIXES)):
        return _open_stack(path, reader)
    if not is_dicom_input(path):
        return FrameFile(texts=(path.name,), read=lambda _: _grey(path, _GREY, reader))
    facts = inspect_dicom(path, MAX_MEGAPIXELS)
    told = (*facts.notes, *filter(None, [facts.spacing.reason]))
    return FrameFile(
        texts=_texts(path, facts.num_frames),
        read=lambda number: grey_of(reader.cine_frame(path, number)[0]),
        notes=tuple(f"The file {note}." for note in told),
        spacing_mm=facts.spacing.mm,
    )


def is_dicom_input(path: Path) -> bool:
    """Tell whether a file is read as DICOM: it is called none of the other kinds."""
    return not (is_image_name(path.name) or _has_suffix(path, _OTHERS))


def list_inputs(folder: Path) -> list[Path]:
    """List the images, DICOM, NIfTI, HDF5 and video files of ``folder`` itself, sorted by name.

    Raises:
        DataError: There is none, or no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"--input '{folder}' is not a folder. Give a file, or a folder of files.")
    found = [path for path in list_files(folder, lambda name: name.upper() != "DICOMDIR") if _is_input(path)]
    if not found:
        names = [path.name for path in sorted(folder.iterdir())[:4]]
        raise DataError(
            f"'{folder}' holds '0' images, DICOM, NIfTI, HDF5 or video files "
            f"(first entries: {', '.join(names) or 'none'}). "
            "Give the folder that the files themselves lie in."
        )
    return found


def grey_in_child(path: Path) -> tuple[Mapping[str, NDArray[Any]], None]:
    """Read an image as the sandbox answers."""
    return {"": read_grey(path)}, None


def facts_in_child(path: Path) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    """Read number of frames, spacing and notes of NIfTI or a video, as the sandbox answers."""
    found = _opened(path)
    spacing = found.spacing_mm if isinstance(found, NiftiFrames) else None
    return {}, {"count": found.count, "spacing_mm": spacing, "notes": getattr(found, "notes", ())}


def frame_in_child(path: Path, *, frame: int) -> tuple[Mapping[str, NDArray[Any]], None]:
    """Read a frame as the sandbox answers; the file stays open in this process for the next one."""
    opened = _opened(path)
    return {"": grey_of(opened.read(frame)) if isinstance(opened, VideoFrames) else opened.read(frame)}, None


def _opened(path: Path) -> NiftiFrames | VideoFrames:
    global _open
    at = path.stat()
    identity = (str(path), at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns)
    if _open is None or _open[0] != identity:
        if _open is not None:
            _open[1].close()
        _open = None
        is_nifti = _has_suffix(path, NIFTI_SUFFIXES)
        found = NiftiFrames(path, MAX_MEGAPIXELS) if is_nifti else VideoFrames(path, MAX_EDGE, MAX_MEGAPIXELS)
        _open = (identity, found)
    return _open[1]


_open: tuple[tuple[Any, ...], NiftiFrames | VideoFrames] | None = None


def _open_stack(path: Path, reader: UntrustedImages) -> FrameFile:
    """Open NIfTI or a video in the child."""
    facts = reader.sandbox.run(_FACTS, path).value
    spacing = facts["spacing_mm"]
    return FrameFile(
        texts=_texts(path, int(facts["count"])),
        read=lambda number: _grey(path, _FRAME, reader, frame=number),
        notes=tuple(f"The file {note}." for note in (*facts["notes"], *([] if spacing else [_NO_SPACING]))),
        spacing_mm=(float(spacing[0]), float(spacing[1])) if spacing else None,
    )


def _texts(path: Path, count: int) -> tuple[str, ...]:
    """Name the frames of a file.

    Raises:
        InputError: There are more than the files of results hold.
    """
    if count > MAX_EDGE:
        raise InputError(f"'{path}' holds '{count}' frames; {MAX_EDGE} at most are read. Cut it into parts.")
    return (path.name,) if count == 1 else tuple(f"{path.name}#{number}" for number in range(count))


def _has_suffix(path: Path, suffixes: Iterable[str]) -> bool:
    return path.name.lower().endswith(tuple(suffixes))


def _is_input(path: Path) -> bool:
    if is_image_name(path.name) or _has_suffix(path, (*_OTHERS, *DICOM_SUFFIXES)):
        return True
    try:
        return is_dicom(path)  # files of series often have numbers for suffixes
    except OSError:
        return False


def _grey(path: Path, function: str, reader: UntrustedImages, **arguments: int) -> Grey:
    image = reader.sandbox.run(function, path, **arguments).array
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
