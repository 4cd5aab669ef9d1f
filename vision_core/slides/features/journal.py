"""Rows of features while they are made: a process that is killed goes on from the last batch that is whole.

Beside the file to be stand two hidden ones: the rows as bytes, and a line per batch with its tiles, those left out, and
a checksum. A batch whose line or bytes are not whole counts as not done.
"""

import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import EnvironmentFault, UsageError
from vision_core.files import writing


@dataclass(frozen=True, kw_only=True)
class Committed:
    """A batch that is on disk: how many tiles it took, and the numbers of those that were left out."""

    tiles: int
    bad: tuple[int, ...]


class RowJournal:
    """The rows of one extraction; a process owns it while it has it open.

    Args:
        path: The file of features to be.
        key: What the rows are of; rows of anything else are dropped.
        dim: Features of a tile.
        dtype: In which they are stored.

    Attributes:
        committed: The batches on disk.
    """

    def __init__(self, path: Path, key: str, dim: int, dtype: np.dtype[Any]) -> None:
        self.committed: list[Committed] = []
        self._key, self._dim, self._dtype = key, dim, dtype
        self._rows_path = path.with_name(f".{path.name}.rows")
        self._index_path = path.with_name(f".{path.name}.index")
        self._rows: BinaryIO
        self._index: BinaryIO
        self._size = 0

    def __enter__(self) -> "RowJournal":
        """Open it, and take over what is whole.

        Raises:
            UsageError: Another process has it.
            EnvironmentFault: It cannot be written.
        """
        with self._writing():
            self._rows_path.parent.mkdir(parents=True, exist_ok=True)
            self._rows, self._index = self._rows_path.open("a+b"), self._index_path.open("a+b")
        try:
            fcntl.flock(self._rows, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._close()
            raise UsageError(f"Another process makes '{self._rows_path}'. Wait for it.") from error
        with self._writing():
            self._take_over()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def commit(self, rows: NDArray[Any], tiles: int, bad: Sequence[int]) -> None:
        """Add a batch.

        Raises:
            EnvironmentFault: The disk is full; the batches before stay.
        """
        data = np.ascontiguousarray(rows, self._dtype).tobytes()
        batch = [tiles, list(bad), len(rows)]
        line = {"batch": batch, "crc": _checksum(batch, data)}
        with self._writing():
            self._rows.write(data)
            self._rows.flush()
            self._index.write(json.dumps(line).encode() + b"\n")
            self._index.flush()
        self._size += len(data)
        self.committed.append(Committed(tiles=tiles, bad=tuple(bad)))

    def rows(self) -> "StoredRows":
        """All rows committed."""
        return StoredRows(self._rows_path, self._dim, self._dtype, self._size)

    def remove(self) -> None:
        """Delete it, when its rows are elsewhere or worthless."""
        self._index_path.unlink(missing_ok=True)
        self._rows_path.unlink(missing_ok=True)

    def _take_over(self) -> None:
        self._index.seek(0)
        self._rows.seek(0)
        lines = self._index.read().splitlines(keepends=True)
        kept = 0
        if lines and _parsed(lines[0]) == {"key": self._key}:
            kept = len(lines[0]) + sum(map(len, takewhile(self._take_over_batch, lines[1:])))
        os.ftruncate(self._index.fileno(), kept)
        os.ftruncate(self._rows.fileno(), self._size)
        if not kept:
            self._index.write(json.dumps({"key": self._key}).encode() + b"\n")
            self._index.flush()

    def _take_over_batch(self, line: bytes) -> bool:
        """Read the rows of a line; false when either is not whole."""
        said = _parsed(line)
        try:
            tiles, bad, rows = batch = said["batch"]
            data = self._rows.read(rows * self._dim * self._dtype.itemsize)
        except (KeyError, ValueError, TypeError):
            return False
        if said.get("crc") != _checksum(batch, data):
            return False
        self._size += len(data)
        self.committed.append(Committed(tiles=tiles, bad=tuple(bad)))
        return True

    def _close(self) -> None:
        # What a buffer still holds after a full disk cannot be written either; its batch does not count.
        for file in (self._rows, self._index):
            try:
                file.close()
            except OSError:
                continue

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with writing(self._rows_path):
                yield
        except EnvironmentFault as error:
            raise EnvironmentFault(f"{error} {self._size} bytes are there already, and stay.") from error


class StoredRows:
    """``(N, dim)`` rows in a file of bytes, read by slices: mapped whole, they would count as memory of the process."""

    def __init__(self, path: Path, dim: int, dtype: np.dtype[Any], size: int) -> None:
        self._path, self._row_bytes = path, dim * dtype.itemsize
        self.shape: tuple[int, int] = (size // max(1, self._row_bytes), dim)
        self.dtype = dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        if not isinstance(rows, slice):
            return np.array(np.memmap(self._path, self.dtype, "r", shape=self.shape)[rows])
        start, stop, step = rows.indices(len(self))
        count = max(0, stop - start) * self.shape[1]
        found = np.fromfile(self._path, self.dtype, count, offset=start * self._row_bytes)
        return found.reshape(-1, self.shape[1])[::step]


def _checksum(batch: Sequence[object], data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(json.dumps(batch).encode()))


def _parsed(line: bytes) -> Mapping[str, Any]:
    """A line of the index; empty when it is torn."""
    if not line.endswith(b"\n"):
        return {}
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
