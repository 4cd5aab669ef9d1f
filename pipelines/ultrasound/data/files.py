"""Files to predict: an image, DICOM, NIfTI, a video, an HDF5 file of frames.

Headers, layouts and frames are read in a child process, frames as they come; in this one no format is parsed.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.formats.cines import HDF5_SUFFIXES, is_cine
from pipelines.ultrasound.data.formats.folders import read_grey_and_flow
from pipelines.ultrasound.data.formats.hdf5 import H5Frames
from pipelines.ultrasound.data.frames import MAX_MEGAPIXELS, Grey, grey_and_flow, white_of
from vision_core.dicom.reader import inspect_dicom, open_cine
from vision_core.errors import DataError, InputError
from vision_core.images.nifti import MAX_EDGE, NIFTI_SUFFIXES, NiftiFrames
from vision_core.images.reading import inspect_image, is_image_name, list_files
from vision_core.images.untrusted import UntrustedImages
from vision_core.images.video import VIDEO_SUFFIXES, VideoFrames
from vision_core.sandbox import Sandbox

_GREY = "pipelines.ultrasound.data.files:grey_in_child"
_GAP = 1.5
_NO_SPACING = "states no size of its pixels; sizes are in pixels"
_NOTES = "pipelines.ultrasound.data.files:notes_in_child"
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
        times_ms: When each frame begins, from the first; None where it is not known.
        place: ``(4, 4)`` takes column, row, frame and 1 to mm in the patient, in DICOM's axes; None without a place.
        machine: Manufacturer and model of the machine; empty where it is not known.
        has_flow: Tells of a frame that was read whether colours lie over its grey, as those of Doppler.
        is_recording: Whether it is of a kind that machines write, text and all: DICOM, NIfTI or a video.
        sandbox: The child process that may parse the file; None where the frames are of no file.
    """

    texts: tuple[str, ...]
    read: Callable[[int], Grey]
    notes: tuple[str, ...] = ()
    spacing_mm: tuple[float, float] | None = None
    times_ms: tuple[float, ...] | None = None
    place: NDArray[np.float64] | None = None
    machine: str = ""
    is_recording: bool = False
    has_flow: Callable[[int], bool] = lambda _: False
    sandbox: Sandbox | None = None


def open_file(path: Path, reader: UntrustedImages) -> FrameFile:
    """Open a file of frames.

    Raises:
        InputError: It is of no known kind, or damaged.
    """
    if is_image_name(path.name):
        read = _Reading(path, _GREY, reader)
        return FrameFile(
            texts=(path.name,),
            read=lambda _: read(),
            has_flow=lambda _: read.has_flow(None),
            notes=tuple(f"The file {note}." for note in reader.sandbox.run(_NOTES, path).value),
            sandbox=reader.sandbox,
        )
    answer = reader.sandbox.run(_FACTS, path)
    facts, place = answer.value, answer.arrays.get("place")
    spacing, times = facts["spacing_mm"], tuple(map(float, facts["times_ms"] or ())) or None
    told = [f"The file {note}." for note in (*facts["notes"], *_uneven(times))]
    read = _Reading(path, _FRAME, reader)
    return FrameFile(
        texts=tuple(map(str, facts["texts"])),
        read=read,
        has_flow=read.has_flow,
        notes=(*(str(note).replace(str(path.absolute()), path.name) for note in facts["sentences"]), *told),
        spacing_mm=(float(spacing[0]), float(spacing[1])) if spacing else None,
        times_ms=times,
        place=None if place is None else np.asarray(place, np.float64),
        machine=str(facts["machine"]),
        is_recording=path.suffix.lower() not in HDF5_SUFFIXES,
        sandbox=reader.sandbox,
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
    found = [path for path in list_files(folder, lambda _: True) if _is_input(path)]
    if not found:
        names = [path.name for path in sorted(folder.iterdir())[:4]]
        raise DataError(
            f"'{folder}' holds '0' images, DICOM, NIfTI, HDF5 or video files "
            f"(first entries: {', '.join(names) or 'none'}). "
            "Give the folder that the files themselves lie in."
        )
    return found


def grey_in_child(path: Path) -> tuple[Mapping[str, NDArray[Any]], bool]:
    """Read an image as the sandbox answers, and whether it has colours over grey."""
    grey, flow = read_grey_and_flow(path)
    return {"": grey}, flow


def notes_in_child(path: Path) -> tuple[Mapping[str, NDArray[Any]], list[str]]:
    """Read what the header of an image leaves open, as frames behind the first, as the sandbox answers."""
    return {}, list(inspect_image(path, MAX_MEGAPIXELS)[0])


def facts_in_child(path: Path) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    """Read names of the frames, spacing, times, place and notes of any other file, as the sandbox answers."""
    told: dict[str, Any] = {"spacing_mm": None, "times_ms": None, "notes": (), "sentences": (), "machine": ""}
    if is_dicom_input(path):
        facts = inspect_dicom(path, MAX_MEGAPIXELS)
        told |= {"texts": _texts(path, facts.num_frames), "spacing_mm": facts.spacing.mm, "times_ms": facts.times_ms}
        open_frames = _opened(path)
        assert isinstance(open_frames, _DicomFrames)
        notes = dict.fromkeys((*facts.notes, *open_frames.notes(), *filter(None, [facts.spacing.reason])))
        told |= {"notes": tuple(notes), "machine": facts.machine}
        return {} if facts.place is None else {"place": facts.place}, told
    found = _opened(path)
    told["texts"] = _texts(path, found.count)
    if isinstance(found, _Hdf5Frames):
        return {}, told | {"texts": found.texts, "sentences": found.notes}
    told["spacing_mm"] = found.spacing_mm if isinstance(found, NiftiFrames) else None
    told["times_ms"] = found.times_ms if isinstance(found, VideoFrames) else None
    told["notes"] = (*getattr(found, "notes", ()), *([] if told["spacing_mm"] else [_NO_SPACING]))
    place = found.place_mm if isinstance(found, NiftiFrames) else None
    return {} if place is None else {"place": place}, told


def frame_in_child(path: Path, *, frame: int) -> tuple[Mapping[str, NDArray[Any]], bool]:
    """Read a frame as ``grey_in_child``; the file stays open in this process for the next one."""
    grey, flow = grey_and_flow(_opened(path).read(frame))
    return {"": grey}, flow


class _DicomFrames:
    """Frames of an open DICOM file, each as the networks see it."""

    def __init__(self, path: Path) -> None:
        self._stack = ExitStack()
        self._cine = self._stack.enter_context(open_cine(path, MAX_MEGAPIXELS))
        self.count = self._cine.num_frames

    def notes(self) -> tuple[str, ...]:
        return self._cine.notes()

    def read(self, frame: int) -> Grey:
        return self._cine.read_full(frame)

    def close(self) -> None:
        self._stack.close()


class _Hdf5Frames:
    """Frames of an open HDF5 file."""

    def __init__(self, path: Path) -> None:
        try:
            self._frames = H5Frames(path, allow_unlabelled=True)
        except InputError:
            raise
        except DataError as error:
            raise InputError(error.problems) from error  # one of many inputs here
        self.texts = tuple(name.text for name in self._frames.names)
        self.count, self.notes = len(self.texts), self._frames.notes

    def read(self, frame: int) -> Grey:
        return _plain(self._frames.image(frame)[0])

    def close(self) -> None:
        self._frames.close()


def _plain(image: Grey) -> Grey:
    """Give grey from 0 to 255 of any other type in 8 bits, or where it has fractions in single precision."""
    if image.dtype.str[1:] in {"u1", "u2"}:
        return image.astype(image.dtype.newbyteorder("="), copy=False)
    whole = image.astype(np.uint8)
    return whole if np.array_equal(whole, image) else image.astype(np.float32)


_Frames = NiftiFrames | VideoFrames | _DicomFrames | _Hdf5Frames


def _opened(path: Path) -> _Frames:
    global _open
    at = path.stat()
    identity = (str(path), at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns)
    if _open is None or _open[0] != identity:
        if _open is not None:
            _open[1].close()
        _open = None
        found: _Frames
        if _has_suffix(path, NIFTI_SUFFIXES):
            found = NiftiFrames(path, MAX_MEGAPIXELS)
        elif _has_suffix(path, VIDEO_SUFFIXES):
            found = VideoFrames(path, MAX_EDGE, MAX_MEGAPIXELS)
        elif _has_suffix(path, HDF5_SUFFIXES):
            found = _Hdf5Frames(path)
        else:
            found = _DicomFrames(path)
        _open = (identity, found)
    return _open[1]


_open: tuple[tuple[Any, ...], _Frames] | None = None


def _uneven(times_ms: tuple[float, ...] | None) -> tuple[str, ...]:
    """Tell where the frames of a file do not follow each other evenly: some were dropped, or shown twice."""
    steps = np.diff(times_ms or ())
    usual = float(np.median(steps)) if len(steps) else 0.0
    long, none = int((steps > _GAP * usual).sum()), int((steps <= 0).sum())
    told = [f"has {long} gaps between frames of more than {_GAP:g} times the usual {usual:.4g} ms"] if long else []
    return (*told, *([f"has {none} frames that begin no later than the one before"] if none else []))


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
    return is_image_name(path.name) or _has_suffix(path, HDF5_SUFFIXES) or is_cine(path)


class _Reading:
    """Reader of the frames of a file in the child, which remembers where colours lie over grey."""

    def __init__(self, path: Path, function: str, reader: UntrustedImages) -> None:
        self._path, self._function, self._reader = path, function, reader
        self._flow: set[int | None] = set()

    def __call__(self, number: int | None = None) -> Grey:
        arguments = {} if number is None else {"frame": number}
        answer = self._reader.sandbox.run(self._function, self._path, **arguments)
        if answer.value:
            self._flow.add(number)
        if answer.array.dtype not in (np.uint8, np.uint16, np.float32):
            raise InputError(f"'{self._path}' was not decoded to a grey image. Save it again as PNG.")
        white_of(answer.array, f"'{self._path}'")
        return answer.array

    def has_flow(self, number: int | None) -> bool:
        return number in self._flow
