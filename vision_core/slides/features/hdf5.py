"""Rows of features in an HDF5 file: safely opened, and in memory only as far as they are asked for."""

import errno
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError

CHUNK_BYTES = 2**20
_BLOCK_BYTES = 8 * 2**20
_ERRNO = re.compile(r"errno = (\d+)")


class H5Rows:
    """The ``(N, D)`` features of a file, read as they are indexed: a slice, or an array of row numbers in any order.

    ``np.asarray`` reads all of them. It may be pickled; the copy opens the file anew.

    Args:
        path: The file; it stays open.

    Raises:
        InputError: As for ``open_h5`` and ``dataset``; or not two axes of floats.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_h5(path)
        self._rows = dataset(self._file, "features")
        if not has_width(self._rows.shape) or not is_float(self._rows.dtype):
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
        return self._gather(rows)

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
        """The open file."""
        return self._file

    def _gather(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Whole blocks are read and rows picked from them: HDF5's own selection by number is far slower."""
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
        return self._rows.chunks[0] if self._rows.chunks else rows_in(self, CHUNK_BYTES)


class Rows(Protocol):
    """``(N, D)`` floats, had by slices or by numbers: an array, or rows in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, D)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the floats."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]], /) -> NDArray[Any]: ...


def open_h5(path: Path) -> Any:  # noqa: ANN401
    """Open an HDF5 file for reading, without a lock, which network file systems may refuse.

    Raises:
        InputError: It is not there, or no whole HDF5 file.
        OSError: The disk or share failed.
    """
    if not path.is_file():
        raise InputError(f"'{path}' is not a file. Give a file of features.")
    try:
        return h5py.File(path, "r", locking=False)
    except (OSError, RuntimeError) as error:
        raise _unreadable(path, error) from error


@contextmanager
def writable_h5(path: Path) -> Iterator[Any]:
    """A new HDF5 file to write to.

    A write that fails inside HDF5 may end the process when the file is closed; so HDF5 is told that all went well, and
    the fault is raised when it is done.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    with path.open("w+b", buffering=0) as raw:
        sink = _Sink(raw)
        # Of one version of the format, so that the same content has the same bytes whatever library wrote it.
        with h5py.File(sink, "w", libver=("v110", "v110")) as file:
            yield file
        if sink.fault:
            raise sink.fault


def dataset(file: Any, name: str) -> Any:  # noqa: ANN401
    """A data set of an open file, whose numbers stand in this file and are all there.

    Raises:
        InputError: It is missing, takes its numbers from other files, or was not written to its end.
    """
    path = file.filename
    if name not in file:
        listed = ", ".join(f"'{key}'" for key in sorted(file)[:5]) or "nothing"
        raise InputError(f"'{path}' has no data set '{name}'; it holds {listed}. Give a file of features.")
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


def blocks(rows: Rows) -> Iterator[tuple[int, NDArray[Any]]]:
    """All rows in turn, a few megabytes at a time, each block with the number of its first row."""
    step = rows_in(rows, _BLOCK_BYTES)
    for first in range(0, len(rows), step):
        yield first, rows[first : first + step]


def rows_in(rows: Rows, size: int) -> int:
    """How many rows make about ``size`` bytes, at least one."""
    return max(1, size // max(1, int(rows.shape[1]) * int(rows.dtype.itemsize)))


def has_width(shape: tuple[int, ...] | None) -> bool:
    """Whether this is the shape of rows: two axes, and of rows that are there, something in them."""
    return shape is not None and len(shape) == 2 and (shape[1] > 0 or shape[0] == 0)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether torch knows these numbers: floats of 2, 4 or 8 bytes."""
    return dtype.kind == "f" and dtype.itemsize <= 8


def plain(value: Any) -> Any:  # noqa: ANN401
    """An attribute of HDF5 as Python's own type."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class _Sink(io.RawIOBase):
    """A file whose writes never fail: the first fault is kept, and nothing is written after it."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self.fault: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        return self._raw.readinto(buffer) or 0

    def truncate(self, size: int | None = None) -> int:
        return self._kept(lambda: self._raw.truncate(size), size or 0)

    def write(self, data: Any) -> int:  # noqa: ANN401
        size = memoryview(data).nbytes
        return self._kept(lambda: self._write_all(memoryview(data).cast("B")), size)

    def _write_all(self, data: memoryview) -> int:
        left = data
        while left:
            left = left[self._raw.write(left) :]
        return data.nbytes

    def _kept(self, action: Callable[[], int], size: int) -> int:
        if self.fault is None:
            try:
                return action()
            except OSError as error:
                self.fault = error
        return size


def _unreadable(path: Path, error: Exception) -> Exception:
    number = _errno_of(error)
    if number in {errno.EACCES, errno.EPERM}:
        return InputError(f"'{path}' cannot be opened: {os.strerror(number).lower()}. Get read access.")
    if number:
        return OSError(number, os.strerror(number), str(path))
    what = "is empty" if path.stat().st_size == 0 else "is damaged or no HDF5 file"
    return InputError(f"'{path}' {what}. Extract the features again, or fetch the file again.")


def _is_complete(found: Any) -> bool:  # noqa: ANN401
    """HDF5 reads what was never written as zeros: a chunk that is not there, or no space for the numbers at all."""
    if not found.size:
        return True
    if found.chunks is None:
        return bool(found.id.get_storage_size() > 0)
    expected = np.prod([-(-length // chunk) for length, chunk in zip(found.shape, found.chunks, strict=True)])
    return bool(found.id.get_num_chunks() == expected)


def _errno_of(error: BaseException) -> int | None:
    """The system's error number behind an error of HDF5, which may have it in its text alone."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = _ERRNO.search(str(error))
    return int(found[1]) if found and int(found[1]) else None
