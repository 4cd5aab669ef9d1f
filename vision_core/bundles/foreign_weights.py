"""Weights files of other programs, read without running any code that is in them."""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vision_core.bundles.unpickling import read_pickled_arrays
from vision_core.errors import CheckpointError

_CONTAINERS = ("model", "state_dict", "teacher", "student")
_NOT_WEIGHTS = ("num_batches_tracked", "pixel_mean", "pixel_std")
_NUMPY_SCALARS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    np.dtypes.Int32DType,
    np.dtypes.BoolDType,
]


def read_weights(path: Path, *, trust: bool = False) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, on the CPU, and the program that wrote it (empty if unknown).

    Raises:
        CheckpointError: Not there, damaged, or a pickle although ``trust`` is False.
    """
    if not path.is_file():
        raise CheckpointError(f"'{path}' is not a file. Give a .pth, .pkl or .safetensors file.")
    if path.suffix == ".pkl":
        if not trust:
            raise _untrusted(path, "it is a pickle")
        arrays, author = read_pickled_arrays(path)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, author or "Caffe2"
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path, trust=trust)
    tensors = _tensors(content)
    if not tensors:
        raise CheckpointError(f"'{path}' holds no tensors. Give the file that training wrote (model_final.pth).")
    return tensors, ""


class _Inert:
    """Stands for any class that a trusted checkpoint names: made, filled and forgotten without running its code."""

    def __new__(cls, *_: object, **__: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _load_torch(path: Path, *, trust: bool) -> object:
    is_zip = zipfile.is_zipfile(path)
    try:
        with _admitted(path, trust=trust and is_zip):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise _refusal(path, is_zip=is_zip, trust=trust) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        told = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"'{path}' is damaged or no PyTorch file: {told}") from error


def _refusal(path: Path, *, is_zip: bool, trust: bool) -> CheckpointError:
    if not is_zip:
        return CheckpointError(f"'{path}' is no PyTorch file, or an old one. Save its state dict anew with torch 2.")
    names = ", ".join(_unknown_classes(path))
    if trust:
        return CheckpointError(f"'{path}' asks for '{names}', which no weights need. Nothing of it was run.")
    return _untrusted(path, f"it asks for '{names}'")


def _admitted(path: Path, *, trust: bool) -> AbstractContextManager[None]:
    names = _unknown_classes(path) if trust else []
    return torch.serialization.safe_globals([*_NUMPY_SCALARS, *((_Inert, name) for name in names)])


def _unknown_classes(path: Path) -> list[str]:
    with torch.serialization.safe_globals(_NUMPY_SCALARS):
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)


def _load_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{path}' is damaged or no safetensors file: {error}") from error


def _untrusted(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"'{path}' could run code when it is read: {reason}. If you know where it comes from, convert it once with "
        f"the verb import-weights: … import-weights {path} --out BUNDLE --i-trust-this-file."
    )


def _tensors(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for key in _CONTAINERS:
        if isinstance(content.get(key), Mapping):
            return _tensors(content[key])
    arrays = {
        str(name): torch.as_tensor(value) for name, value in content.items() if isinstance(value, Tensor | np.ndarray)
    }
    return {name: value for name, value in arrays.items() if not name.endswith(_NOT_WEIGHTS)}
