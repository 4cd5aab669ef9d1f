"""Writing of masks as NIfTI-1 (``.nii.gz``), which 3D Slicer, ITK-SNAP and nibabel open.

Source: the NIfTI-1 header of the Neuroimaging Informatics Technology Initiative, https://nifti.nimh.nih.gov/nifti-1.
"""

import gzip
import struct
from pathlib import Path

import numpy as np

from vision_core.errors import InputError
from vision_core.files import atomic_path
from vision_core.results import MaskStack

_HEADER_BYTES, _DATA_AT = 348, 352
_UINT8 = 2
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
