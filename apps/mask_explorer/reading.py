"""Files of unknown origin as pixels, each kind in a child process with limits."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.isolation import DicomReader
from vision_core.dicom.reader import DICOM_SUFFIXES, inspect_dicom, is_dicom
from vision_core.sandbox import Decoder

_MAX_MEGAPIXELS = 50.0
_SECONDS = 20.0


class FileReader:
    """Reads DICOM by its mark, since its files often have no suffix, and everything else as an image."""

    def __init__(self) -> None:
        self._images = Decoder(max_megapixels=_MAX_MEGAPIXELS, seconds=_SECONDS)
        self._dicoms = DicomReader(seconds=_SECONDS)

    def read(self, path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """The pixels ``(H, W, 3)`` RGB, and what a person should know of them.

        Raises:
            InputError: It is neither, damaged, or too large.
        """
        if path.suffix.lower() not in DICOM_SUFFIXES and not (path.is_file() and is_dicom(path)):
            return self._images.read_image(path), ()
        frames = inspect_dicom(path, _MAX_MEGAPIXELS).num_frames
        notes = (f"The file holds {frames} frames; the first is shown.",) if frames > 1 else ()
        return self._dicoms.read(path, 0, _MAX_MEGAPIXELS), notes
