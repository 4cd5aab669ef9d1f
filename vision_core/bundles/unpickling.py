"""Arrays from a pickle of unknown origin, read in a child process that can build arrays and nothing else."""

import codecs
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct, scalar

from vision_core.errors import CheckpointError, InputError
from vision_core.sandbox import Arrays, Limits, Sandbox

_SECONDS = 600.0
_SPARE_MIB = 4096
_LEAST_SHARE = 0.3  # of the arrays of the set that is taken, for another set
_ALLOWED = {
    ("_codecs", "encode"): codecs.encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): scalar,
    ("numpy._core.multiarray", "scalar"): scalar,
}


def read_pickled_arrays(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], str]:
    """Read the arrays of a Detectron pickle by name, and its author (empty if absent).

    Arrays are looked for under ``model`` or ``blobs``, if present; momenta and other entries are left out.

    Raises:
        CheckpointError: The pickle asks for anything but arrays, or is damaged.
    """
    file_mib = path.stat().st_size >> 20
    limits = Limits(seconds=_SECONDS, memory_mib=4 * file_mib + _SPARE_MIB, answer_mib=4 * file_mib + _SPARE_MIB)
    with Sandbox(limits) as sandbox:
        try:
            answer = sandbox.run("vision_core.bundles.unpickling:unpickle_arrays", path)
        except InputError as error:
            raise CheckpointError(
                f"'{path}' could not be read: its child process was lost. Give the file as detectron2 writes it today "
                "(.pth)."
            ) from error
    return dict(answer.arrays), str(answer.value)


def unpickle_arrays(path: Path) -> tuple[Arrays, str]:
    """Unpickle the arrays of a file and its author, in the sandbox.

    Raises:
        CheckpointError: As ``read_pickled_arrays``.
    """
    try:
        with path.open("rb") as file:
            return _arrays(_ArraysOnly(file, encoding="latin1").load())
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each opcode of a damaged pickle fails in its own way
        told = str(error) if "asks for" in str(error) else f"is no readable pickle ({error})."
        raise CheckpointError(f"'{path}' {told}") from error


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 (the signature of pickle)
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"asks for '{module}.{name}', which no weights need. Nothing of it was run.")
        return _ALLOWED[module, name]


def _arrays(content: Any) -> tuple[dict[str, np.ndarray[Any, Any]], str]:  # noqa: ANN401 (not yet checked)
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, not a dictionary of arrays")
    author = str(content.get("__author__", ""))
    inner = next((content[key] for key in ("model", "blobs") if isinstance(content.get(key), dict)), content)
    others = [
        name for name, each in content.items() if each is not inner and _count(each) > _LEAST_SHARE * _count(inner)
    ]
    if others and _count(inner):
        raise pickle.UnpicklingError(
            f"asks for a choice: beside the weights it holds another set, '{others[0]}'. Pickle the one you want alone."
        )
    return {
        str(name): np.ascontiguousarray(value)
        for name, value in inner.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and not str(name).endswith("_momentum")
    }, author


def _count(content: object) -> int:
    return sum(isinstance(each, np.ndarray) for each in content.values()) if isinstance(content, dict) else 0
