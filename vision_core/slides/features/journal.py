"""Journal of an extraction, to resume after the last complete batch.

Beside the feature file to be written lie two hidden files: the rows as bytes, and an index with one line per batch: its
number of tiles, those left out, and a checksum. A batch with a torn line or torn rows is extracted again. HDF5 is no
substitute: a file that a killed process was writing may not open any more.
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
class CommittedBatch:
    """Batch on disk: number of tiles, and indices of those left out."""

    tiles: int
    bad: tuple[int, ...]


class RowJournal:
    """Journal of one extraction, locked by the process that has it open.

    Args:
        path: The feature file to be written later.
        key: Digest of the extraction's inputs; rows of another key are dropped.
        dim: Number of features per tile.
        dtype: Type in which rows are stored.

    Attributes:
        committed: The batches on disk.
    """

    def __init__(self, path: Path, key: str, dim: int, dtype: np.dtype[Any]) -> None:
        self.committed: list[CommittedBatch] = []
        self._key, self._dim, self._dtype = key, dim, dtype
        self._rows_path = path.with_name(f".{path.name}.rows")
        self._index_path = path.with_name(f".{path.name}.index")
        self._rows: BinaryIO
        self._index: BinaryIO
        self._size = 0

    def __enter__(self) -> "RowJournal":
        """Open the journal, and recover its complete batches.

        Raises:
            UsageError: Another process has it open.
            EnvironmentFault: It cannot be written.
        """
        with self._writing():
            self._rows_path.parent.mkdir(parents=True, exist_ok=True)
            self._rows, self._index = self._rows_path.open("a+b"), self._index_path.open("a+b")
        try:
            fcntl.flock(self._rows, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._close()
            raise UsageError(f"Another process is writing '{self._rows_path}'. Wait until it has finished.") from error
        with self._writing():
            self._recover()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def commit(self, rows: NDArray[Any], tiles: int, bad: Sequence[int]) -> None:
        """Append a batch.

        Raises:
            EnvironmentFault: The disk is full; earlier batches are kept.
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
        self.committed.append(CommittedBatch(tiles=tiles, bad=tuple(bad)))

    def rows(self) -> "StoredRows":
        """Return all committed rows."""
        return StoredRows(self._rows_path, self._dim, self._dtype, self._size)

    def remove(self) -> None:
        """Delete the journal."""
        self._index_path.unlink(missing_ok=True)
        self._rows_path.unlink(missing_ok=True)

    def _recover(self) -> None:
        self._index.seek(0)
        self._rows.seek(0)
        lines = self._index.read().splitlines(keepends=True)
        kept = 0
        if lines and _parse_line(lines[0]) == {"key": self._key}:
            kept = len(lines[0]) + sum(map(len, takewhile(self._recover_batch, lines[1:])))
        os.ftruncate(self._index.fileno(), kept)
        os.ftruncate(self._rows.fileno(), self._size)
        if not kept:
            self._index.write(json.dumps({"key": self._key}).encode() + b"\n")
            self._index.flush()

    def _recover_batch(self, line: bytes) -> bool:
        """Recover the batch of a line; return False if it is torn."""
        entry = _parse_line(line)
        try:
            tiles, bad, rows = batch = entry["batch"]
            data = self._rows.read(rows * self._dim * self._dtype.itemsize)
        except (KeyError, ValueError, TypeError):
            return False
        if entry.get("crc") != _checksum(batch, data):
            return False
        self._size += len(data)
        self.committed.append(CommittedBatch(tiles=tiles, bad=tuple(bad)))
        return True

    def _close(self) -> None:
        # After a full disk, closing fails on what is still buffered; that batch is not committed.
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
            raise EnvironmentFault(f"{error} {self._size} bytes are already written and are kept.") from error


class StoredRows:
    """Rows ``(N, dim)`` in a file of bytes, read by slices.

    Memory-mapped as a whole, they would count as memory of the process.
    """

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


def _parse_line(line: bytes) -> Mapping[str, Any]:
    """Parse a line of the index; empty if it is torn."""
    if not line.endswith(b"\n"):
        return {}
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
