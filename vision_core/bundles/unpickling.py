"""Arrays out of a pickle that somebody else made: a child process reads it and may build arrays, nothing else."""

import codecs
import json
import multiprocessing
import pickle
import resource
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct, scalar
from safetensors.numpy import load_file, save_file

from vision_core.errors import CheckpointError

_TIMEOUT_S = 600
_SPARE_BYTES = 4 << 30
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
    """The arrays of a Detectron pickle by name, and what its ``__author__`` entry says (empty if absent).

    Nested dictionaries are read at ``model`` or ``blobs``; entries that are no arrays, and momenta, are left out.

    Raises:
        CheckpointError: The pickle wants to build anything but arrays, or is damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        child = multiprocessing.get_context("spawn").Process(target=_convert, args=(path, target))
        child.start()
        child.join(_TIMEOUT_S)
        if child.is_alive():
            child.kill()
            child.join()
        note = target / "note.json"
        if not note.exists():
            raise CheckpointError(
                f"'{path}' could not be read: the child process ended with code {child.exitcode}. "
                "Give the file as detectron2 writes it today (.pth)."
            )
        told = json.loads(note.read_text(encoding="utf-8"))
        if "refused" in told:
            raise CheckpointError(f"'{path}' {told['refused']}")
        return load_file(target / "arrays.safetensors"), str(told["author"])


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 (the signature of pickle)
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"asks for '{module}.{name}', which no weights need. Nothing of it was run.")
        return _ALLOWED[module, name]


def _convert(path: Path, folder: Path) -> None:
    """Runs in the child."""
    size = path.stat().st_size * 4 + _SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
        arrays, author = _arrays(content)
    # A damaged pickle fails in as many ways as there are opcodes; each is told to the parent.
    except Exception as error:
        told = {"refused": str(error) if "asks for" in str(error) else f"is no readable pickle ({error})."}
    else:
        save_file(arrays, folder / "arrays.safetensors")
        told = {"author": author}
    (folder / "note.json").write_text(json.dumps(told), encoding="utf-8")


def _arrays(content: Any) -> tuple[dict[str, np.ndarray[Any, Any]], str]:  # noqa: ANN401 (it is not checked yet)
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, not a dictionary of arrays")
    author = str(content.get("__author__", ""))
    inner = next((content[key] for key in ("model", "blobs") if isinstance(content.get(key), dict)), content)
    return {
        str(name): np.ascontiguousarray(value)
        for name, value in inner.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and not str(name).endswith("_momentum")
    }, author
