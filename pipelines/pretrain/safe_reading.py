"""Reading images of which nothing is known yet: DICOM decoders may end the process they run in."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from pipelines.pretrain.images_index import Files, Images, is_image_name
from vision_core.dicom_isolation import DicomReader


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


@contextmanager
def safe_reading(images: Images) -> Iterator[SafeReading]:
    """A way to read ``images``; the child starts with the first DICOM file and ends with the block."""
    with DicomReader() as reader:
        yield SafeReading(images, reader)
