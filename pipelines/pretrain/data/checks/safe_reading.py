"""Images of unknown origin, read in child processes: a damaged file may crash its decoder, of DICOM above all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from pipelines.pretrain.data.index import MEGAPIXELS, Files, Images
from vision_core.dicom.reader import DICOM_SUFFIXES, is_dicom
from vision_core.errors import DataError
from vision_core.images.folders import suffix_notes
from vision_core.images.reading import is_image_name, list_files, list_images
from vision_core.images.untrusted import UntrustedImages

_CHILDREN = max(1, min(4, os.cpu_count() or 1))


class SafeReading:
    """Reader of an index of images, files in child processes; threads may share it."""

    def __init__(self, images: Images, num_children: int) -> None:
        self._pixels = images.pixels
        self._free: SimpleQueue[UntrustedImages] = SimpleQueue()
        self._children: list[UntrustedImages] = []
        if isinstance(self._pixels, Files):
            limit = self._pixels.max_megapixels
            self._children = [UntrustedImages(max_megapixels=limit, key=MEGAPIXELS) for _ in range(num_children)]
        for child in self._children:
            self._free.put(child)

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """Read one image: ``(H, W, 3)`` RGB.

        Raises:
            InputError: It cannot be read, or its decoder crashed.
        """
        return self.noted(index)[0]

    def noted(self, index: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Read one image and the notes on it, which begin with its name; raises as ``__call__``."""
        if not isinstance(self._pixels, Files):
            return self._pixels.read(index), ()
        path, child = self._pixels.path(index), self._free.get()
        try:
            if not is_image_name(path.name):
                return child.noted_dicom(path, 0)
            pixels, notes = child.noted_image(path)
            return pixels, (*suffix_notes(path), *notes)
        finally:
            self._free.put(child)

    def check(self, index: int) -> tuple[str, ...]:
        """Read the header of one image, and decode it where that is not enough; returns notes, raises as ``__call__``.

        The header is read in this process: only decoders crash.
        """
        notes, is_open = self._pixels.check_header(index)
        return self.noted(index)[1] if is_open else notes

    def close(self) -> None:
        """End the children."""
        for child in self._children:
            child.close()


def list_inputs(folder: Path) -> list[Path]:
    """List the image and DICOM files of ``folder`` itself, sorted by name.

    Raises:
        DataError: There is none, or no such folder.
    """
    others = list_files(folder, _may_be_dicom) if folder.is_dir() else []
    # Files of series often have numbers for suffixes.
    found = [path for path in others if path.suffix.lower() in DICOM_SUFFIXES or _has_mark(path)]
    try:
        return sorted([*found, *list_images(folder)])
    except DataError:
        if not found:
            raise
        return found


@contextmanager
def safe_reading(images: Images) -> Iterator[SafeReading]:
    """Open a reader of ``images``; its children start with their first file and end with the block."""
    read = SafeReading(images, _CHILDREN)
    try:
        yield read
    finally:
        read.close()


def _may_be_dicom(name: str) -> bool:
    return not is_image_name(name) and name.upper() != "DICOMDIR"


def _has_mark(path: Path) -> bool:
    try:
        return is_dicom(path)
    except OSError:
        return False  # an unreadable file that nobody has called an image
