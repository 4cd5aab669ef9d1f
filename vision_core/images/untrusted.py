"""Images of unknown origin, decoded in a sandbox: image files and DICOM."""

import logging
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.reader import DICOM_SUFFIXES, inspect_dicom, is_dicom, read_dicom_image
from vision_core.errors import InputError
from vision_core.images.reading import is_image_name, read_image
from vision_core.sandbox import Limits, Sandbox

_LOG = logging.getLogger("domainsight")
_BYTES_PER_PIXEL = 3


class UntrustedImages:
    """Reader of images of unknown origin, in a child process.

    A decoder may end its process: of 1 100 random damages to two lossless JPEG files, nine ended GDCM with a signal
    instead of an error; behind the checks of ``vision_core/dicom/codestream.py``, one of 1 800 still does.

    Args:
        max_megapixels: Larger images are refused by their header.
        key: Setting of the running verb that raises this limit, for the message; empty: it has none.
        seconds: Wall time for one image.
        memory_mib: Memory for one image on top of the child's own size.
    """

    def __init__(
        self, *, max_megapixels: float = 100.0, key: str = "", seconds: float = 60.0, memory_mib: int = 4096
    ) -> None:
        answer_mib = int(max_megapixels * 1e6 * _BYTES_PER_PIXEL / 2**20) + 1
        self.max_megapixels, self._key = max_megapixels, key
        self.sandbox = Sandbox(Limits(seconds=seconds, memory_mib=memory_mib, answer_mib=answer_mib))

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Read an image, or DICOM for any other suffix: ``(H, W, 3)`` uint8, RGB.

        Of several frames the first is read, with a warning.

        Raises:
            InputError: The file cannot be read, or decoding crashed, hung or needed too much memory.
            OSError: The disk or share failed while reading; trying again may help.
        """
        if is_image_name(path.name):
            return self.read_image(path)
        if (frames := self._frames(path)) > 1:
            _LOG.warning("'%s' holds %d frames; the first is used.", path, frames)
        return self.read_dicom(path, 0)

    def read(self, path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Read an upload, as DICOM where it has the mark of DICOM; return pixels and notes.

        Raises:
            InputError: The file is neither an image nor DICOM, or damaged, or too large.
        """
        if path.suffix.lower() not in DICOM_SUFFIXES and not (path.is_file() and is_dicom(path)):
            return self.read_image(path), ()
        frames = self._frames(path)
        notes = (f"The file holds {frames} frames; the first is shown.",) if frames > 1 else ()
        return self.read_dicom(path, 0), notes

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """Read an image as ``images.reading.read_image``; raises as ``__call__``."""
        function = "vision_core.images.reading:read_image"
        return self._pixels(function, path, max_megapixels=self.max_megapixels, key=self._key)

    def read_dicom(self, path: Path, frame: int | None = None) -> NDArray[np.uint8]:
        """Read DICOM as ``dicom.reader.read_dicom_image``; raises as ``__call__``."""
        function = "vision_core.dicom.reader:read_dicom_image"
        return self._pixels(function, path, frame=frame, max_megapixels=self.max_megapixels)

    def close(self) -> None:
        """End the child process; the next image starts another."""
        self.sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _frames(self, path: Path) -> int:
        return inspect_dicom(path, self.max_megapixels).num_frames

    def _pixels(self, function: str, path: Path, **arguments: float | int | str | None) -> NDArray[np.uint8]:
        pixels = self.sandbox.run(function, path, **arguments).array
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != _BYTES_PER_PIXEL or not pixels.size:
            raise InputError(
                f"'{path}' was not decoded to an RGB image. Open it in a viewer you trust and save it again."
            )
        return pixels


def read_any(path: Path) -> NDArray[np.uint8]:
    """Read an image, or DICOM for any other suffix: ``(H, W, 3)`` uint8, RGB."""
    return read_image(path) if is_image_name(path.name) else read_dicom_image(path)
