"""Reading images of which nothing is known yet: decoders may end the process they run in, those of DICOM above all."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from pipelines.pretrain.data.formats.listing import LINKS_OUT, Presence
from pipelines.pretrain.data.index import Files, Images, Reading
from vision_core.dicom.reader import DICOM_SUFFIXES, is_dicom
from vision_core.errors import DataError
from vision_core.images.reading import is_image_name, list_images
from vision_core.images.untrusted import UntrustedImages

_LOG = logging.getLogger("domainsight")
_CHILDREN = max(1, min(4, os.cpu_count() or 1))


class SafeReading:
    """Reads images as ``Images.read`` does, files in child processes; threads may share it."""

    def __init__(self, images: Images, num_children: int) -> None:
        self._pixels = images.pixels
        self._free: SimpleQueue[UntrustedImages] = SimpleQueue()
        self._children: list[UntrustedImages] = []
        if isinstance(self._pixels, Files):
            self._children = [UntrustedImages(max_megapixels=self._pixels.max_megapixels) for _ in range(num_children)]
        for child in self._children:
            self._free.put(child)

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """Read one image: ``(H, W, 3)`` RGB.

        Raises:
            InputError: It cannot be read, or its decoder crashed.
        """
        if not isinstance(self._pixels, Files):
            return self._pixels.read(index)
        path, child = self._pixels.path(index), self._free.get()
        try:
            return child.read_image(path) if is_image_name(path.name) else child.read_dicom(path, 0)
        finally:
            self._free.put(child)

    def close(self) -> None:
        """End the children."""
        for child in self._children:
            child.close()


def list_inputs(folder: Path) -> list[Path]:
    """The image and DICOM files of ``folder`` itself, sorted by name.

    Raises:
        DataError: There is none, or no such folder.
    """
    found = _dicom_files(folder) if folder.is_dir() else []
    try:
        return sorted([*found, *list_images(folder)])
    except DataError:
        if not found:
            raise
        return found


@contextmanager
def safe_reading(images: Images) -> Iterator[SafeReading]:
    """Open a way to read ``images``; each child starts with its first file and ends with the block."""
    read = SafeReading(images, _CHILDREN)
    try:
        yield read
    finally:
        read.close()


def _dicom_files(folder: Path) -> list[Path]:
    """Files with a suffix of DICOM or, whatever it is, with its mark: series often have numbers for suffixes."""
    reading = Reading()
    presence = Presence(folder, reading)
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    others = [name for name in names if not is_image_name(name) and name.upper() != "DICOMDIR" and presence.has(name)]
    for link in reading.facts.get(LINKS_OUT, ()):
        if not is_image_name(link):  # those are named with the images
            _LOG.warning("'%s' is a link out of the folder, in a circle or to nothing; left out.", folder / link)
    return [folder / name for name in others if Path(name).suffix.lower() in DICOM_SUFFIXES or _has_mark(folder / name)]


def _has_mark(path: Path) -> bool:
    try:
        return is_dicom(path)
    except OSError:
        return False  # whatever it is, nobody has called it an image
