"""NIfTI and videos among the data of a training, whose frames are read in any order, over and over.

Packed NIfTI and videos can only be read from their start, so the frames that are needed go to a temporary file once.
"""

import os
import tempfile
import zlib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.frames import MAX_MEGAPIXELS, Grey, grey_and_flow
from vision_core.errors import InputError
from vision_core.images.nifti import MASK_TYPES, MAX_EDGE, NIFTI_SUFFIXES, NiftiFrames
from vision_core.images.video import VideoFrames

_Identity = tuple[str, int, int, bool]


class Stack:
    """Frames of NIfTI or a video.

    Args:
        path: The file.
        is_mask: Whether label maps, with their types of value, are read.

    Attributes:
        count: Number of frames.

    Raises:
        InputError: The file cannot be read.
    """

    def __init__(self, path: Path, *, is_mask: bool = False) -> None:
        self.path, self.is_mask = path, is_mask
        self.count = _count(_identity(path, is_mask=is_mask))

    def read(self, number: int, wanted: Collection[int]) -> tuple[Grey, bool]:
        """Read the grey ``(H, W)`` of a frame, and whether colours lie over it, as those of Doppler.

        Args:
            number: Which.
            wanted: All that will be asked for: a packed file is read once for them.

        Raises:
            InputError: The file cannot be read.
        """
        if self.path.suffix.lower() == ".nii":
            return _frames_of(self.path, is_mask=self.is_mask).read(number), False
        identity = _identity(self.path, is_mask=self.is_mask)
        stored = next((each for each in _stores if each.holds(identity, number)), None)
        if stored is None:
            stored = _own_store()
            frames = _frames_of(self.path, is_mask=self.is_mask)
            for each in sorted({number, *wanted}):
                found = frames.read(each)
                stored.add(identity, each, *((found, False) if self.is_mask else grey_and_flow(found)))
            frames.close()
        return stored.read(identity, number)


def place_of(path: Path) -> NDArray[np.float64]:
    """Read where the frames of a NIfTI file lie, ``(4, 4)``; raises as ``NiftiFrames``."""
    frames = NiftiFrames(path, MAX_MEGAPIXELS, MASK_TYPES)
    frames.close()
    return frames.place


class _Store:
    """Frames of many files in one temporary file without a name, which a forked process may read and not add to."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._file = tempfile.TemporaryFile(prefix="domainsight-frames-")  # noqa: SIM115 (it lives as long as this)
        self._places: dict[tuple[_Identity, int], tuple[int, int, tuple[int, ...], np.dtype[Any], bool]] = {}
        self._end = 0

    def holds(self, identity: _Identity, number: int) -> bool:
        return (identity, number) in self._places

    def add(self, identity: _Identity, number: int, frame: Grey, flow: bool) -> None:
        content = zlib.compress(np.ascontiguousarray(frame).tobytes(), level=1)
        os.pwrite(self._file.fileno(), content, self._end)
        self._places[identity, number] = (self._end, len(content), frame.shape, frame.dtype, flow)
        self._end += len(content)

    def read(self, identity: _Identity, number: int) -> tuple[Grey, bool]:
        start, length, shape, dtype, flow = self._places[identity, number]
        content = zlib.decompress(os.pread(self._file.fileno(), length, start))
        return np.frombuffer(content, dtype).reshape(shape), flow


_stores: list[_Store] = []


def _own_store() -> _Store:
    if not _stores or _stores[-1].process != os.getpid():
        _stores.append(_Store())
    return _stores[-1]


def _identity(path: Path, *, is_mask: bool) -> _Identity:
    try:
        at = path.stat()
    except OSError as error:
        raise InputError(f"'{path}' cannot be opened: {(error.strerror or 'no reason given').lower()}.") from error
    return (str(path), at.st_size, at.st_mtime_ns, is_mask)


@cache
def _count(identity: _Identity) -> int:
    """Count frames, for which a video is decoded whole: what it declares is often wrong."""
    frames = _frames_of(Path(identity[0]), is_mask=identity[-1])
    frames.close()
    return frames.count


def _frames_of(path: Path, *, is_mask: bool) -> NiftiFrames | VideoFrames:
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        return VideoFrames(path, MAX_EDGE, MAX_MEGAPIXELS)
    return NiftiFrames(path, MAX_MEGAPIXELS, MASK_TYPES) if is_mask else NiftiFrames(path, MAX_MEGAPIXELS)
