"""Reading images of which nothing is known yet: decoders may end the process they run in, those of DICOM above all."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.pretrain.data.formats.listing import LINKS_OUT, Presence
from pipelines.pretrain.data.index import Files, Images, Reading
from vision_core.dicom.isolation import DicomReader
from vision_core.dicom.reader import DICOM_SUFFIXES, is_dicom
from vision_core.errors import DataError
from vision_core.images.reading import is_image_name, list_images

_LOG = logging.getLogger("domainsight")


class SafeReading:
    """Reads images as ``Images.read`` does, DICOM in a child process."""

    def __init__(self, images: Images, reader: DicomReader) -> None:
        self._pixels, self._reader = images.pixels, reader

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """``(H, W, 3)`` RGB of one image.

        Raises:
            InputError: It cannot be read, or its decoder crashed.
        """
        if not isinstance(self._pixels, Files) or is_image_name(self._pixels.path(index).name):
            return self._pixels.read(index)
        return self._reader.read(self._pixels.path(index), 0, self._pixels.max_megapixels)


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
    """A way to read ``images``; the child starts with the first DICOM file and ends with the block."""
    with DicomReader() as reader:
        yield SafeReading(images, reader)


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
