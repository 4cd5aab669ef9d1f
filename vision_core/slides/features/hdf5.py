"""HDF5 files of features: checked when opened, their rows read when indexed."""

import errno
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.optional import require

CHUNK_BYTES = 2**20
ROWS = ("features", "feats", "embeddings")  # names under which programs write them
_WHY = "it reads and writes feature files in HDF5 (.h5)"
_BLOCK_BYTES = 8 * 2**20
_HEAD_BYTES = 512
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head")
_POINTER = b"version https://git-lfs"
_FORMATS: Mapping[bytes, tuple[str, tuple[str, ...]]] = {
    b"\x89HDF\r\n": ("an HDF5 file", (".h5", ".hdf5")),
    b"\x93NUMPY": ("a NumPy array", (".npy",)),
    b"PK\x03\x04": ("a zip, as torch writes tensors", (".pt", ".pth")),
}
_ERRNO = re.compile(r"errno = (\d+)")


class H5Rows:
    """Features ``(N, D)`` of a file, read when indexed.

    The index is a slice or an array of row numbers in any order; ``np.asarray`` reads all rows. A pickled copy opens
    the file itself.

    Args:
        path: The file; it stays open.

    Raises:
        InputError: As for ``open_h5`` and ``checked_dataset``; or not two axes of floats.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_h5(path)
        name = next((name for name in ROWS if name in self._file), ROWS[0])
        self._rows = checked_dataset(self._file, name)
        if not is_row_shape(self._rows.shape) or not is_supported_float(self._rows.dtype):
            raise InputError(
                f"'{path}': features have shape {self._rows.shape} and type {self._rows.dtype}; "
                "expected floats of shape (tiles, features). Extract them again."
            )
        self.shape: tuple[int, int] = self._rows.shape
        self.dtype: np.dtype[Any] = self._rows.dtype.newbyteorder("=")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return np.asarray(self._rows[start : max(start, stop)], self.dtype)
            rows = np.arange(start, stop, step)
        return self._read_rows(rows)

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("features in a file cannot be had without a copy")
        return np.asarray(self[:], dtype)

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def file(self) -> Any:  # noqa: ANN401 (h5py carries no types)
        """Return the open file."""
        return self._file

    def _read_rows(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Gather rows from whole chunks, far faster than HDF5's own selection."""
        numbers = np.asarray(rows)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise IndexError(f"row numbers: expected one axis of integers, found {numbers.dtype} of {numbers.shape}")
        if numbers.size and not (-len(self) <= numbers.min() and numbers.max() < len(self)):
            raise IndexError(f"row numbers from {numbers.min()} to {numbers.max()}: there are {len(self)} rows")
        numbers = numbers.astype(np.int64) % max(len(self), 1)
        picked = np.empty((len(numbers), self.shape[1]), self.dtype)
        order = np.argsort(numbers, kind="stable")
        edges = np.flatnonzero(np.diff(numbers[order] // self._block_rows)) + 1
        for places in np.split(order, edges):
            if len(places):
                first, last = numbers[places[0]], numbers[places[-1]]
                picked[places] = self._rows[first : last + 1][numbers[places] - first]
        return picked

    @property
    def _block_rows(self) -> int:
        return self._rows.chunks[0] if self._rows.chunks else rows_within(self, CHUNK_BYTES)


class Rows(Protocol):
    """Features ``(N, D)`` of an array or a file, indexed by rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return ``(N, D)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the floats."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]], /) -> NDArray[Any]: ...


def open_h5(path: Path) -> Any:  # noqa: ANN401
    """Open an HDF5 file for reading, without locking it.

    Network file systems may refuse locks.

    Raises:
        InputError: The file does not exist, or is no complete HDF5 file.
        OSError: The disk or share failed.
    """
    if not path.is_file():
        raise InputError(f"'{path}' is not a file. Give a file of features.")
    try:
        return require("h5py", _WHY).File(path, "r", locking=False)
    except (OSError, RuntimeError) as error:
        raise _read_error(path, error) from error


@contextmanager
def create_h5(path: Path) -> Iterator[Any]:
    """Create an HDF5 file.

    After a failed write HDF5 may end the process when the file is closed. So writes report success to HDF5, and the
    first error is raised after the file is closed.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    with path.open("w+b", buffering=0) as raw:
        target = _DeferredErrorFile(raw)
        # One fixed version of the format, so that equal content gives equal bytes with any version of the library.
        with require("h5py", _WHY).File(target, "w", libver=("v110", "v110")) as file:
            yield file
        if target.error:
            raise target.error


def checked_dataset(file: Any, name: str) -> Any:  # noqa: ANN401
    """Return a data set, complete and stored in the file itself.

    Raises:
        InputError: The data set is missing, refers to other files, or was not written completely.
    """
    path = file.filename
    if name not in file:
        listed = ", ".join(f"'{key}'" for key in sorted(file)[:5]) or "nothing"
        raise InputError(f"'{path}' has no data set '{name}'; it holds {listed}. Give a file of features.")
    h5py = require("h5py", _WHY)
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise InputError(f"'{path}': '{name}' is a link, which may lead to other files. Write it as a data set.")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"'{path}': '{name}' is a group, expected a data set. Give a file of features.")
    if found.is_virtual or found.external:
        raise InputError(f"'{path}': '{name}' takes its numbers from other files. Write them into this one.")
    if not _is_complete(found):
        raise InputError(f"'{path}': '{name}' was not written to its end. Extract the features again.")
    return found


def read_coords(file: Any) -> NDArray[np.int64]:  # noqa: ANN401
    """Read ``coords``, the corners ``(N, 2)`` in pixels of level 0.

    Raises:
        InputError: As of ``checked_dataset``, or they are no pairs of whole numbers.
    """
    path, found = file.filename, checked_dataset(file, "coords")
    if len(found.shape or ()) != 2 or found.shape[1] != 2 or found.dtype.kind not in "iuf":
        raise InputError(f"'{path}': coords have shape {found.shape} and type {found.dtype}; expected (tiles, 2).")
    coords = np.asarray(found[:])
    if coords.dtype.kind == "f" and not (np.isfinite(coords).all() and (coords == np.round(coords)).all()):
        raise InputError(f"'{path}': coords are no whole pixels of level 0. Write corners (x, y) in pixels.")
    return coords.astype(np.int64)


def row_blocks(rows: Rows) -> Iterator[tuple[int, NDArray[Any]]]:
    """Iterate over blocks of a few megabytes, with their first rows."""
    step = rows_within(rows, _BLOCK_BYTES)
    for first in range(0, len(rows), step):
        yield first, rows[first : first + step]


def rows_within(rows: Rows, size: int) -> int:
    """Compute the number of rows in ``size`` bytes, at least one."""
    return max(1, size // max(1, int(rows.shape[1]) * int(rows.dtype.itemsize)))


def is_row_shape(shape: tuple[int, ...] | None) -> bool:
    """Return whether a shape is ``(N, D)``, D above 0 unless empty."""
    return shape is not None and len(shape) == 2 and (shape[1] > 0 or shape[0] == 0)


def is_supported_float(dtype: np.dtype[Any]) -> bool:
    """Return whether torch supports a type: floats up to 8 bytes."""
    return dtype.kind == "f" and dtype.itemsize <= 8


def to_python(value: Any) -> Any:  # noqa: ANN401
    """Convert an attribute of HDF5 to a built-in type."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class _DeferredErrorFile(io.RawIOBase):
    """File that keeps its first write error instead of raising it."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        return self._raw.readinto(buffer) or 0

    def truncate(self, size: int | None = None) -> int:
        return self._defer_error(lambda: self._raw.truncate(size), size or 0)

    def write(self, data: Any) -> int:  # noqa: ANN401
        size = memoryview(data).nbytes
        return self._defer_error(lambda: self._write_all(memoryview(data).cast("B")), size)

    def _write_all(self, data: memoryview) -> int:
        left = data
        while left:
            left = left[self._raw.write(left) :]
        return data.nbytes

    def _defer_error(self, action: Callable[[], int], size: int) -> int:
        if self.error is None:
            try:
                return action()
            except OSError as error:
                self.error = error
        return size


def _read_error(path: Path, error: Exception) -> Exception:
    number = _errno_of(error)
    if number in {errno.EACCES, errno.EPERM}:
        return InputError(f"'{path}' cannot be opened: {os.strerror(number).lower()}. Get read access.")
    if number:
        return OSError(number, os.strerror(number), str(path))
    try:
        tell_cause(path)
    except InputError as cause:
        return cause
    what = "is empty" if path.stat().st_size == 0 else "is damaged or no HDF5 file"
    return InputError(f"'{path}' {what}. Extract the features again, or fetch the file again.")


def tell_cause(path: Path) -> None:
    """Refuse a file whose first bytes show that it holds no features, whatever its suffix.

    Raises:
        InputError: It is a web page, a Git LFS pointer, or of another format than its suffix says.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_PAGES):
        raise InputError(
            f"'{path}' is a web page, not features: the download was answered by a site. Download the file itself."
        )
    if head.startswith(_POINTER):
        raise InputError(f"'{path}' is a Git LFS pointer, not the features. Fetch them with: git lfs pull.")
    kind, suffixes = next((kinds for mark, kinds in _FORMATS.items() if head.startswith(mark)), ("", ()))
    if kind and path.suffix.lower() not in suffixes:
        raise InputError(f"'{path}' is {kind}, not what its suffix says. Rename it to end in '{suffixes[0]}'.")


def _is_complete(found: Any) -> bool:  # noqa: ANN401
    """Return whether all chunks are stored; HDF5 reads missing ones as zeros."""
    if not found.size:
        return True
    if found.chunks is None:
        return bool(found.id.get_storage_size() > 0)
    expected = np.prod([-(-length // chunk) for length, chunk in zip(found.shape, found.chunks, strict=True)])
    return bool(found.id.get_num_chunks() == expected)


def _errno_of(error: BaseException) -> int | None:
    """Find the system's error number in an HDF5 error or its text."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = _ERRNO.search(str(error))
    return int(found[1]) if found and int(found[1]) else None
