"""Weights files of other programs, read without running any code that is in them.

Safetensors are read as such; every other file goes through ``torch.load(weights_only=True)`` or is refused. Pickles of
detectron2 (``.pkl``) need the user's trust and are read in a child process (``unpickling.py``).
"""

import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vision_core.bundles.file_faults import find_fault
from vision_core.bundles.unpickling import read_pickled_arrays
from vision_core.bundles.weight_sets import WeightSets, find_sets
from vision_core.console import command_line
from vision_core.errors import CheckpointError, UserError

_NOT_WEIGHTS = ("num_batches_tracked", "pixel_mean", "pixel_std")
_DAMAGES = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    zipfile.BadZipFile,
    struct.error,
)
_ZIP = b"PK\x03\x04"  # torch decides by these bytes, too
_REPLACE = "Fetch or save it again."
_Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]

# Many training checkpoints hold NumPy numbers, and building those runs no other code. They are allowed for the whole
# process: torch's context manager would withdraw the permission while another thread is still reading.
torch.serialization.add_safe_globals(
    [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Float32DType,
        np.dtypes.Int64DType,
        np.dtypes.Int32DType,
        np.dtypes.BoolDType,
    ]
)


@dataclass(frozen=True, kw_only=True)
class ForeignWeights:
    """Tensors of a file that another program wrote.

    Attributes:
        tensors: By name, on the CPU, without batch counters and pixel statistics.
        author: The program, empty if unknown.
        notes: Which of several sets of weights was taken.
    """

    tensors: dict[str, Tensor]
    author: str
    notes: tuple[str, ...] = ()


def read_weights(path: Path, *, trust: bool = False, key: str | None = None) -> ForeignWeights:
    """Read the tensors of a file and the program that wrote it; of several sets of weights, the average.

    Args:
        path: ``.safetensors``, what ``torch.save`` wrote, or a pickle of detectron2 (``.pkl``).
        trust: Also read pickles and checkpoints with unknown classes, in a restricted way.
        key: Name of another set (``source.weights_key``), or of a prefix in one.

    Raises:
        CheckpointError: Not there, damaged, without tensors or ``key``, or unsafe although ``trust`` is False.
    """
    convert = (
        "If you know where it comes from, convert it once with the verb import-weights: … import-weights "
        f"{command_line([str(path)])} --out BUNDLE --i-trust-this-file; or save its state dict alone with torch 2."
    )
    if path.suffix == ".pkl" and path.is_file():
        _check_file(path)
        if not trust:
            raise CheckpointError(f"'{path}' could run code when it is read: it is a pickle. {convert}")
        arrays, author = read_pickled_arrays(path)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        sets = _keyed(WeightSets(by_name={"": tensors}, chosen=""), path, key)
        return ForeignWeights(tensors=_by_name(sets, path, ()), author=author or "Caffe2")
    unsafe = "Nothing of it was run. Save its state dict alone with torch 2." if trust else convert
    content = _read_content(path, unsafe=unsafe, damaged=_REPLACE, trust=trust)
    sets = _keyed(find_sets(content), path, key)
    writer = content.get("__author__") if isinstance(content, Mapping) else None
    return ForeignWeights(
        tensors=_by_name(sets, path, _NOT_WEIGHTS),
        author=writer if isinstance(writer, str) else "",
        notes=_told(sets),
    )


def read_state_dict(
    path: Path,
    *,
    unsafe: str,
    damaged: str = _REPLACE,
    left_out: tuple[str, ...] = (),
    preferred: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Read the tensors of a file by name; a zip of torch is mapped into memory.

    They are looked for under ``model``, ``state_dict`` and the like; entries that are no tensors are ignored.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote.
        unsafe: What to do about a file that could run code: the end of the message.
        damaged: What to do about a damaged file, likewise.
        left_out: Endings of names that are not wanted.
        preferred: Names of the set to take where there are several.

    Raises:
        CheckpointError: Not there, damaged, unsafe, without tensors by name, or with an average beside other weights
            and none ``preferred``.
    """
    sets = find_sets(_read_content(path, unsafe=unsafe, damaged=damaged, trust=False), preferred)
    if sets.has_choice and sets.chosen not in preferred:
        raise CheckpointError(
            f"'{path}' holds several sets of weights: {sets.names()}. Save the one you want in a file of its own: "
            f"torch.save(torch.load(FILE)['{sets.chosen}'], NEW)."
        )
    return _by_name(sets, path, left_out)


def _read_content(path: Path, *, unsafe: str, damaged: str, trust: bool) -> object:
    if not path.is_file():
        raise CheckpointError(f"'{path}' is not a file. Give a file of weights (.pth, .pkl or .safetensors).")
    _check_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return load_torch(path, unsafe=unsafe, damaged=damaged, trust=trust)
    except SafetensorError as error:
        raise CheckpointError(f"'{path}' is damaged or no safetensors file: {error}. {damaged}") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_file(path: Path) -> None:
    """Refuse a file that cannot be weights, with the cause."""
    try:
        fault = find_fault(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if fault:
        raise CheckpointError(f"'{path}' {fault}")


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    reason = (error.strerror or str(error)).lower()
    return CheckpointError(f"'{path}' cannot be read: {reason}. Mend that, or give another file.")


def _keyed(sets: WeightSets, path: Path, key: str | None) -> WeightSets:
    """Choose the set ``key``, or one with names that begin with it."""
    if not key:
        return sets
    if key in sets.by_name:
        return replace(sets, chosen=key)
    order = sorted(sets.by_name, key=lambda name: name != sets.chosen)
    for name in order:
        if any(f".{entry}".find(f".{key}.") >= 0 for entry in sets.by_name[name]):
            return replace(sets, chosen=name)
    raise CheckpointError(
        f"source.weights_key: '{key}' names no set of weights in '{path}'; it holds {sets.names()}. Give one of these, "
        "or leave it empty."
    )


def _told(sets: WeightSets) -> tuple[str, ...]:
    if len(sets.by_name) < 2:
        return ()
    average = " (the average)" if sets.is_chosen_averaged else ""
    return (
        f"weights: took '{sets.chosen}'{average} of the sets {sets.names()}; source.weights_key=NAME takes another",
    )


def _by_name(sets: WeightSets, path: Path, left_out: tuple[str, ...]) -> dict[str, Tensor]:
    tensors = {name: tensor for name, tensor in sets.tensors.items() if not name.endswith(left_out)}
    if not tensors:
        raise CheckpointError(f"'{path}' holds no tensors by name. Give the file with the state dict.")
    return tensors


def load_torch(
    path: Path,
    *,
    unsafe: str,
    damaged: str = _REPLACE,
    error: type[UserError] = CheckpointError,
    trust: bool = False,
) -> object:
    """Load what ``torch.save`` wrote, on the CPU; a zip is mapped into memory.

    Args:
        path: The file.
        unsafe: As for ``read_state_dict``.
        damaged: As for ``read_state_dict``.
        error: Class of the refusal.
        trust: Put objects without behaviour in the place of unknown classes, where the file is a zip.

    Raises:
        UserError: As ``error``: damaged, not written by torch, or with more than tensors and plain values.
        OSError: The disk or share failed.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    inert: list[_Allowed] = []
    if trust and is_zip:
        inert += [(_Inert, name) for name in _unknown_classes(path)]
    try:
        with (
            torch.serialization.safe_globals(inert),
            warnings.catch_warnings(action="ignore"),  # about old files; a refusal names the fault
        ):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as fault:
        if not is_zip:
            found = "is no PyTorch file, or a pickle of objects that could run code when it is read"
        elif names := ", ".join(_unknown_classes(path)):
            found = f"could run code when it is read: it asks for '{names}'"
        else:
            raise _damage(path, fault, damaged, error) from fault
        raise error(f"'{path}' {found}. {unsafe}") from fault
    except _DAMAGES as fault:
        raise _damage(path, fault, damaged, error) from fault


class _Inert:
    """Object without behaviour, in the place of one whose class a trusted checkpoint names."""

    def __new__(cls, *_: object, **__: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _unknown_classes(path: Path) -> list[str]:
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (pickle.UnpicklingError, *_DAMAGES):
        return []


def _damage(path: Path, fault: Exception, remedy: str, error: type[UserError]) -> UserError:
    reason = str(fault).partition("\n")[0].rstrip(".:") or type(fault).__name__
    return error(f"'{path}' is damaged or no PyTorch file: {reason}. {remedy}")
