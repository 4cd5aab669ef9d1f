"""Images of unknown origin, decoded in a child process with limits."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.isolation import DicomReader
from vision_core.dicom.reader import DICOM_SUFFIXES, inspect_dicom, is_dicom, read_dicom_image
from vision_core.images.reading import is_image_name, read_image
from vision_core.sandbox import Decoder

_LOG = logging.getLogger("domainsight")
_PAGE_MEGAPIXELS = 50.0
_PAGE_SECONDS = 20.0


class UnknownFiles:
    """Reads files as ``read_any`` does, each kind in a child process that starts with its first file."""

    def __init__(self) -> None:
        self._images, self._dicom = Decoder(), DicomReader()

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """``(H, W, 3)`` RGB of an image or DICOM file, of several frames the first, with a warning.

        Raises:
            InputError: It cannot be read, or decoding crashed, hung or needed too much memory.
        """
        if is_image_name(path.name):
            return self._images.read_image(path)
        if (count := inspect_dicom(path).num_frames) > 1:  # the child's warning would not be heard
            _LOG.warning("'%s' holds %d frames; the first is used.", path, count)
        return self._dicom.read(path, 0)


class FileReader:
    """Reads uploads to a page: DICOM by its mark, since its files often have no suffix, else as an image."""

    def __init__(self) -> None:
        self._images = Decoder(max_megapixels=_PAGE_MEGAPIXELS, seconds=_PAGE_SECONDS)
        self._dicoms = DicomReader(seconds=_PAGE_SECONDS)

    def read(self, path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """The pixels ``(H, W, 3)`` RGB, and what a person should know of them.

        Raises:
            InputError: It is neither, damaged, or too large.
        """
        if path.suffix.lower() not in DICOM_SUFFIXES and not (path.is_file() and is_dicom(path)):
            return self._images.read_image(path), ()
        frames = inspect_dicom(path, _PAGE_MEGAPIXELS).num_frames
        notes = (f"The file holds {frames} frames; the first is shown.",) if frames > 1 else ()
        return self._dicoms.read(path, 0, _PAGE_MEGAPIXELS), notes


def read_any(path: Path) -> NDArray[np.uint8]:
    """``(H, W, 3)`` RGB of an image, or of a DICOM file where the suffix is none of an image."""
    return read_image(path) if is_image_name(path.name) else read_dicom_image(path)
