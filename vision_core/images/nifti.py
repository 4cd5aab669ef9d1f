"""NIfTI-1 (``.nii``, ``.nii.gz``): masks written, which 3D Slicer, ITK-SNAP and nibabel open, and frames read.

Source: the NIfTI-1 header of the Neuroimaging Informatics Technology Initiative, https://nifti.nimh.nih.gov/nifti-1.
"""

import gzip
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.files import atomic_path
from vision_core.results import MaskStack

_HEADER_BYTES, _DATA_AT = 348, 352
_UINT8 = 2
_TYPES = {2: "u1", 512: "u2"}
_NO_SCALE = (0.0, 1.0)
_GZIP = b"\x1f\x8b"
NIFTI_SUFFIXES = (".nii", ".nii.gz")
_MILLIMETRES, _NO_UNIT = 2, 0
MAX_EDGE = 32_767  # of an image in this format


def write_masks(path: Path, masks: MaskStack, spacing_mm: tuple[float, float] | None = None) -> None:
    """Write the masks ``(F, H, W)`` of frames as one file of ``W x H x F`` voxels of 0 and 1, atomically.

    They are taken one at a time.

    Frames of a moving probe have no place in space: their distance is written as 1, and so is a spacing that is not
    known, without a unit.

    Args:
        path: File to write, ``.nii.gz``.
        masks: Masks of the frames.
        spacing_mm: Height and width of a pixel.

    Raises:
        InputError: There are more frames than the format holds.
        EnvironmentFault: It cannot be written.
    """
    frames, height, width = masks.shape
    if max(masks.shape) > MAX_EDGE:
        raise InputError(f"Masks of '{frames}' frames of {width} x {height}: NIfTI holds {MAX_EDGE} at most. Cut it.")
    row_mm, column_mm = spacing_mm or (1.0, 1.0)
    header = bytearray(_DATA_AT)
    struct.pack_into("<i", header, 0, _HEADER_BYTES)
    struct.pack_into("<8h", header, 40, 3, width, height, frames, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _UINT8, 8)
    struct.pack_into("<8f", header, 76, 1, column_mm, row_mm, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, _DATA_AT)
    struct.pack_into("<f", header, 112, 1)  # slope
    header[123] = _MILLIMETRES if spacing_mm else _NO_UNIT
    header[344:348] = b"n+1\0"
    with (
        atomic_path(path) as partial,
        partial.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
    ):
        packed.write(header)
        for number in range(frames):  # the last axis, columns, runs fastest, as in the file
            packed.write(np.ascontiguousarray(masks[number], np.uint8).tobytes())


class NiftiFrames:
    """Frames ``W x H x F`` of a file, read one at a time; a packed file is unpacked as it is read.

    Args:
        path: The file.
        max_megapixels: Larger frames are refused by the header.

    Attributes:
        count: Number of frames.
        size: Height and width.
        spacing_mm: Height and width of a pixel; None where the file does not say.

    Raises:
        InputError: It is no NIfTI-1 of grey frames of 8 or 16 bits, or too large.
    """

    def __init__(self, path: Path, max_megapixels: float = 100.0) -> None:
        self._path = path
        with path.open("rb") as file:
            is_packed = file.read(2) == _GZIP
        self._file = cast(BinaryIO, gzip.GzipFile(path)) if is_packed else path.open("rb")
        header = self._bytes(0, _DATA_AT)
        order = "<" if struct.unpack_from("<i", header)[0] == _HEADER_BYTES else ">"
        if struct.unpack_from(f"{order}i", header)[0] != _HEADER_BYTES or header[344:347] != b"n+1":
            raise InputError(f"'{path}' is no NIfTI-1 file of one part. Save it as .nii or .nii.gz.")
        axes, *edges = struct.unpack_from(f"{order}8h", header, 40)
        width, height, self.count = (*edges[:axes], 1, 1)[:3]
        if not 2 <= axes <= len(edges) or min(edges[:axes]) < 1 or any(each != 1 for each in edges[3:axes]):
            raise InputError(f"'{path}' has the shape '{tuple(edges[:axes])}'; expected width x height x frames.")
        if width * height > max_megapixels * 1e6:
            raise InputError(
                f"'{path}' has frames of '{width} x {height}' pixels; {max_megapixels:g} million are read."
            )
        kind = struct.unpack_from(f"{order}h", header, 70)[0]
        if kind not in _TYPES:
            raise InputError(
                f"'{path}' holds values of type '{kind}'; 8 or 16 bits without a sign are read. Convert it."
            )
        slope, intercept = struct.unpack_from(f"{order}2f", header, 112)
        if slope not in _NO_SCALE or (slope and intercept):
            raise InputError(
                f"'{path}' scales its values by '{slope:g}' and {intercept:g}. Save the grey values themselves."
            )
        self.size = (height, width)
        self._type = np.dtype(order + _TYPES[kind])
        column_mm, row_mm = struct.unpack_from(f"{order}2f", header, 80)
        is_known = header[123] & 7 == _MILLIMETRES and all(0 < each < np.inf for each in (row_mm, column_mm))
        self.spacing_mm = (float(row_mm), float(column_mm)) if is_known else None
        start = struct.unpack_from(f"{order}f", header, 108)[0]
        if not _DATA_AT <= start < 2**31:  # NaN fails too
            raise InputError(f"'{path}' begins its values at byte '{start:g}', which cannot be. Save it again.")
        self._start = int(start)

    def read(self, frame: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Read a frame ``(H, W)``.

        Raises:
            InputError: There is none of this number, or the file is cut off or damaged.
        """
        if not 0 <= frame < self.count:
            raise InputError(
                f"'{self._path}' holds '{self.count}' frames, counted from 0; there is no frame '{frame}'."
            )
        length = self.size[0] * self.size[1] * self._type.itemsize
        values = np.frombuffer(self._bytes(self._start + frame * length, length), self._type).reshape(self.size)
        return values.astype(self._type.newbyteorder("="))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _bytes(self, start: int, length: int) -> bytes:
        try:
            self._file.seek(start)
            found = self._file.read(length)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"'{self._path}' is damaged or cut off: it cannot be unpacked. Copy it again.") from error
        if len(found) < length:
            raise InputError(
                f"'{self._path}' is cut off: '{length}' bytes expected, {len(found)} found. Copy it again."
            )
        return found
