"""NIfTI (``.nii``, ``.nii.gz``) by nibabel: masks written, which 3D Slicer and ITK-SNAP open, and frames read."""

import gzip
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError, MissingDependencyError
from vision_core.files import atomic_path
from vision_core.optional import require
from vision_core.results import MaskStack

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MAX_EDGE = 32_767  # of an image in NIfTI-1, which more tools read than NIfTI-2
_TYPES = ("uint8", "uint16")
MASK_TYPES = (*_TYPES, "int8", "int16", "int32", "float32", "float64")  # of label maps, whose values are checked anyway
_MILLIMETRES = 2  # code of the unit
_LONGEST_DESCRIPTION = 79  # and a zero
_SCANNER = 1  # code of a place in the scanner's axes


def write_masks(
    path: Path,
    masks: MaskStack,
    spacing_mm: tuple[float, float] | None = None,
    place: NDArray[np.float64] | None = None,
    told: str = "",
) -> None:
    """Write the masks ``(F, H, W)`` of frames as one file of ``W x H x F`` voxels of 0 and 1, atomically.

    They are taken one at a time.

    Frames of a moving probe have no place in space: their distance is written as 1, and so is a spacing that is not
    known, without a unit.

    Args:
        path: File to write, ``.nii.gz``.
        masks: Masks of the frames.
        spacing_mm: Height and width of a pixel.
        place: ``(4, 4)`` takes column, row, frame and 1 to mm (left, posterior, superior), as DICOM has them; None
            where the frames have no place, else it holds the spacing too.
        told: What the masks are of; the description in the header holds its first 79 characters.

    Raises:
        InputError: There are more frames than the format holds.
        EnvironmentFault: It cannot be written.
        MissingDependencyError: nibabel is not installed.
    """
    frames, height, width = masks.shape
    if max(masks.shape) > MAX_EDGE:
        raise InputError(f"Masks of '{frames}' frames of {width} x {height}: NIfTI holds {MAX_EDGE} at most. Cut it.")
    row_mm, column_mm = spacing_mm or (1.0, 1.0)
    header = _nibabel().Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((width, height, frames))
    header.set_zooms((column_mm, row_mm, 1))
    header.set_slope_inter(1, 0)
    if told:
        header["descrip"] = told.encode("ascii", "replace")[:_LONGEST_DESCRIPTION]
    header.set_data_offset(header.single_vox_offset)
    if place is not None:
        axes = np.diag([-1.0, -1.0, 1.0, 1.0]) @ place  # right, anterior, superior
        header.set_qform(axes, code=_SCANNER, strip_shears=True)
        header.set_sform(axes, code=_SCANNER)
    if spacing_mm or place is not None:
        header.set_xyzt_units(xyz=_MILLIMETRES)
    with (
        atomic_path(path) as partial,
        partial.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
    ):
        header.write_to(packed)  # without extensions, as its last four bytes say: many read voxels from byte 352 on
        for number in range(frames):  # the last axis, columns, runs fastest, as in the file
            packed.write(np.ascontiguousarray(masks[number], np.uint8).tobytes())


class NiftiFrames:
    """Frames ``W x H x F`` of a file, read one at a time; a packed file is unpacked as it is read.

    Args:
        path: The file.
        max_megapixels: Larger frames are refused by the header.
        types: Types of value that are read.

    Attributes:
        count: Number of frames.
        size: Height and width.
        place: ``(4, 4)`` takes column, row, frame and 1 to the axes of the file.
        place_mm: The same to mm in the patient's axes as DICOM has them (left, posterior, superior); None where the
            file states no place, or one that is not sound.
        spacing_mm: Height and width of a pixel; None where the file does not say.

    Raises:
        InputError: It holds no grey frames of 8 or 16 bits in one file, or they are too large.
        MissingDependencyError: nibabel is not installed.
    """

    def __init__(self, path: Path, max_megapixels: float = 100.0, types: Sequence[str] = _TYPES) -> None:
        self._path = path
        try:
            image = _nibabel().load(path, keep_file_open=True)  # else each frame would unpack the file from its start
            shape, kind = tuple(map(int, image.shape)), image.get_data_dtype().newbyteorder("=").name
            self._values: Any = image.dataobj
            scale = float(self._values.slope), float(self._values.inter)
            self.place: NDArray[np.float64] = np.asarray(image.affine, np.float64)
        except MissingDependencyError:
            raise
        except Exception as error:  # a header may say anything, and nibabel then raises anything
            raise InputError(f"'{path}' is no NIfTI file of one part. Save it as .nii or .nii.gz.") from error
        if not len(shape) >= 2 or min(shape) < 1 or any(each != 1 for each in shape[3:]):
            raise InputError(f"'{path}' has the shape '{shape}'; expected width x height x frames.")
        width, height, self.count = (*shape, 1)[:3]
        if width * height > max_megapixels * 1e6:
            raise InputError(
                f"'{path}' has frames of '{width} x {height}' pixels; {max_megapixels:g} million are read."
            )
        if kind not in types:
            raise InputError(f"'{path}' holds values of type '{kind}'; {', '.join(types)} are read. Convert it.")
        if scale != (1, 0):
            raise InputError(
                f"'{path}' scales its values by '{scale[0]:g}' and {scale[1]:g}. Save the grey values themselves."
            )
        self.size = (height, width)
        column_mm, row_mm = (float(each) for each in image.header["pixdim"][1:3])
        is_known = int(image.header["xyzt_units"]) & 7 == _MILLIMETRES
        is_known = is_known and all(0 < each < np.inf for each in (row_mm, column_mm))
        self.spacing_mm = (row_mm, column_mm) if is_known else None
        self.place_mm = _patient_place(image.header, self.place)

    def read(self, frame: int) -> NDArray[Any]:
        """Read a frame ``(H, W)``.

        Raises:
            InputError: There is none of this number, or the file is cut off or damaged.
        """
        if not 0 <= frame < self.count:
            raise InputError(
                f"'{self._path}' holds '{self.count}' frames, counted from 0; there is no frame '{frame}'."
            )
        place = (slice(None), slice(None), frame, *[0] * (len(self._values.shape) - 3))
        try:
            values = np.asarray(self._values[place[: len(self._values.shape)]])
        except (EOFError, OSError, ValueError, OverflowError, zlib.error) as error:  # gzip raises an OSError too
            raise InputError(
                f"'{self._path}' is cut off or damaged: frame '{frame}' is not there whole. Copy it again."
            ) from error
        return np.ascontiguousarray(values.T).astype(values.dtype.newbyteorder("="))

    def close(self) -> None:
        """Close the file."""
        self._values = None


def _patient_place(header: Any, place: NDArray[np.float64]) -> NDArray[np.float64] | None:  # noqa: ANN401
    is_stated = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    is_mm = int(header["xyzt_units"]) & 7 in (0, _MILLIMETRES)  # many files name no unit, and mean mm
    if not (is_stated and is_mm and np.isfinite(place).all() and abs(np.linalg.det(place[:3, :3])) > 0):
        return None
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ place, np.float64)


def _nibabel() -> ModuleType:
    library = require("nibabel", "it reads and writes NIfTI")
    logging.getLogger("nibabel.global").disabled = True  # what it mends in a header, it would print
    return library
