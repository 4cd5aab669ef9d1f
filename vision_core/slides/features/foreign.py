"""Features of other programs: tensors (``.pt``) and arrays (``.npy``)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.slides.features.hdf5 import ROWS, is_row_shape, is_supported_float, tell_cause

_SAVE_ARRAY = "Save the floats alone, of shape (tiles, features): numpy.save('x.npy', array)."
_SAVE_TENSOR = "Save the floats alone, of shape (tiles, features): torch.save(tensor, 'x.pt')."
_Pair = tuple[NDArray[Any], NDArray[Any] | None]


def read_npy(path: Path) -> _Pair:
    """Map the array of a ``.npy`` file into memory; there are no coordinates with it.

    Raises:
        InputError: Damaged, a pickle of objects, or not two axes of floats.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        tell_cause(path)
        if "pickle" in str(error) or "Python objects" in str(error):
            raise InputError(f"'{path}' may be a pickle of objects, or is damaged. {_SAVE_ARRAY}") from error
        raise InputError(f"'{path}' is damaged or no NumPy file: {str(error).rstrip('.')}. {_SAVE_ARRAY}") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"'{path}' is an archive of several arrays. {_SAVE_ARRAY}")
    return _as_rows(path, array, _SAVE_ARRAY), None


def read_pt(path: Path) -> _Pair:
    """Map the tensor of a ``.pt`` file into memory, or those under ``features`` and ``coords``.

    Raises:
        InputError: Damaged, a pickle of objects, or not two axes of floats.
    """
    from vision_core.bundles.foreign_weights import load_torch  # here, since other formats do without torch

    tell_cause(path)
    content = load_torch(path, unsafe=_SAVE_TENSOR, damaged=_SAVE_TENSOR, error=InputError)
    if not isinstance(content, Mapping):
        return _as_rows(path, _array(path, content), _SAVE_TENSOR), None
    name = next((name for name in ROWS if name in content), None)
    if name is None:
        raise InputError(f"'{path}' holds {sorted(map(str, content))[:5]}, no '{ROWS[0]}'. {_SAVE_TENSOR}")
    coords = content.get("coords")
    rows = _as_rows(path, _array(path, content[name]), _SAVE_TENSOR)
    return rows, None if coords is None else _as_corners(path, _array(path, coords))


def _array(path: Path, value: object) -> NDArray[Any]:
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        raise InputError(f"'{path}' holds a {type(value).__name__}, expected a dense tensor. {_SAVE_TENSOR}")
    tensor = value.detach()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def _as_rows(path: Path, array: NDArray[Any], remedy: str) -> NDArray[Any]:
    if not is_row_shape(array.shape) or not is_supported_float(array.dtype):
        raise InputError(f"'{path}': features have shape {array.shape} and type {array.dtype}. {remedy}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _as_corners(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise InputError(f"'{path}': coords have shape {array.shape} and type {array.dtype}; expected (tiles, 2).")
    return array
