"""Ledger of a batch: one line per processed input, on disk before the next input starts."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from vision_core.csv_tables import Cell
from vision_core.errors import UsageError
from vision_core.files import Stamp, sha256, writing


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Output(_Line):
    """Output file; its name is relative to the output folder."""

    file: str
    size: int
    sha256: str


class Record(_Line):
    """Line of the ledger: one input, done or failed.

    Attributes:
        input: Path of the input, as the plan spells it.
        name: Stem of its outputs.
        reason: Reason of the failure.
        values: Its columns in ``results.csv``.
    """

    input: str
    name: str
    status: Literal["done", "failed"]
    reason: str = ""
    seconds: float
    version: str
    fingerprint: str
    stamp: Stamp | None = None
    outputs: tuple[Output, ...] = ()
    values: Mapping[str, Cell] = {}


class Ledger:
    """Ledger of one process, locked while it is open; the system frees the lock of a killed process.

    Args:
        path: ``ledger/<shard>.jsonl``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        # A lock of its own beside the file: releases of filelock before 4 empty the file that they lock.
        self._lock = FileLock(path.with_name(f".{path.stem}.lock"))

    def __enter__(self) -> "Ledger":
        """Open and lock the file.

        Raises:
            UsageError: Another process has locked it.
            EnvironmentFault: It cannot be written.
        """
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        try:
            with writing(self.path):
                self._lock.acquire(blocking=False)
        except Timeout as error:
            self._file.close()
            raise UsageError(
                f"Another process works on '{self.path.parent.parent}'. Wait for it, or choose another --out."
            ) from error
        self._drop_torn_line()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file:
            self._file.close()
        self._lock.release()

    def append(self, record: Record) -> None:
        """Add a line and flush it to disk.

        Raises:
            EnvironmentFault: The disk is full.
        """
        assert self._file is not None
        with writing(self.path):
            self._file.write(record.model_dump_json().encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def clear(self) -> None:
        """Remove all lines."""
        assert self._file is not None
        self._file.truncate(0)

    def _drop_torn_line(self) -> None:
        # A process that was killed, or had no space left, may have written half a line; it must not join the next.
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)


def read_ledgers(folder: Path) -> dict[str, Record]:
    """Read the last record of each input from all ledgers.

    Of two shards, a done record wins over a failed one. Unreadable lines are skipped: their inputs are not done.
    """
    known: dict[str, Record] = {}
    for path in sorted(folder.glob("*.jsonl")):
        own = {record.input: record for record in _records(path)}  # a later line replaces an earlier one
        known |= {name: record for name, record in own.items() if name not in known or record.status == "done"}
    return known


def all_records(folder: Path) -> Iterator[Record]:
    """Read every line of every shard, replaced ones included."""
    for path in sorted(folder.glob("*.jsonl")):
        yield from _records(path)


def output(path: Path, folder: Path) -> Output:
    """Describe an output file in ``folder``."""
    return Output(file=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=sha256(path))


def fault_of(made: Output, folder: Path) -> str:
    """Describe the damage of an output file; empty when it is whole."""
    path = folder / made.file
    if not path.is_file():
        return f"its output '{made.file}' is missing"
    if path.stat().st_size != made.size or sha256(path) != made.sha256:
        return f"its output '{made.file}' is not what was written"
    return ""


def _records(path: Path) -> Iterator[Record]:
    for line in path.read_bytes().splitlines():
        try:
            yield Record.model_validate_json(line)
        except ValidationError:
            continue
