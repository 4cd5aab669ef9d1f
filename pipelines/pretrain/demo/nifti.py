"""Reading of 8-bit volumes from NIfTI-1 files. Source: nifti1.h of the NIfTI Data Format Working Group, 2007."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError

_HEADER_BYTES = 348
_SHAPE_AT, _KIND_AT, _OFFSET_AT, _MAGIC_AT = 40, 70, 108, 344
_UINT8 = 2
_MOST_VOXELS = 2**28


def read_volume(path: Path) -> NDArray[np.uint8]:
    """Read the stored voxels of a ``.nii.gz`` file, ``(x, y, z)``.

    Scales and orientation in its header are not applied.

    Raises:
        InputError: The file is damaged, or is no little-endian volume of 8 bits.
    """
    try:
        with gzip.open(path) as file:
            header = file.read(_HEADER_BYTES)
            shape, start = _layout(path, header)
            file.seek(start)
            voxels = file.read(int(np.prod(shape)))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"'{path}' cannot be unpacked: {error}. Install its package again.") from error
    if len(voxels) != np.prod(shape):
        raise InputError(
            f"'{path}' holds '{len(voxels)}' voxels, {np.prod(shape)} are needed. Install its package again."
        )
    return np.frombuffer(voxels, np.uint8).reshape(shape, order="F")


def _layout(path: Path, header: bytes) -> tuple[tuple[int, int, int], int]:
    """Parse shape and offset of the voxels from a header."""
    if len(header) < _HEADER_BYTES or header[_MAGIC_AT:] != b"n+1\0":
        raise InputError(f"'{path}' is no NIfTI-1 volume in one file. Give a .nii.gz file.")
    (size,) = struct.unpack_from("<i", header)
    dimensions, *shape = struct.unpack_from("<4h", header, _SHAPE_AT)
    (kind,) = struct.unpack_from("<h", header, _KIND_AT)
    (start,) = struct.unpack_from("<f", header, _OFFSET_AT)
    if size != _HEADER_BYTES or dimensions != 3 or kind != _UINT8:
        raise InputError(
            f"'{path}' has '{dimensions}' dimensions of kind '{kind}'; a little-endian volume of 3 dimensions with "
            f"8 bits a voxel (kind {_UINT8}) is expected."
        )
    if min(shape) < 1 or np.prod(shape, dtype=np.int64) > _MOST_VOXELS or not start >= _HEADER_BYTES:
        raise InputError(f"'{path}' claims '{' x '.join(map(str, shape))}' voxels from byte '{start:g}' on: damaged.")
    return (shape[0], shape[1], shape[2]), int(start)
