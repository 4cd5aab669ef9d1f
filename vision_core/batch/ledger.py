"""Ledger of a batch: one line per processed input, on disk before the next input starts; and what has started."""

import json
import os
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from vision_core.csv_tables import Cell
from vision_core.errors import UsageError
from vision_core.files import Stamp, sha256, text_of, writing

ENDED_HERE = "the process ended here"
_ENDS_BYTES = 4096


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Output(_Line):
    """Output file.

    Attributes:
        file: Its name, relative to the output folder.
        size: In bytes.
        sha256: Of all of it.
        modified_ns: Time of change; None in ledgers of older versions.
        ends: Hash of the first and the last 4 KiB; None in ledgers of older versions.
    """

    file: str
    size: int
    sha256: str
    modified_ns: int | None = None
    ends: str | None = None


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

    Attributes:
        attempts: Inputs that have started and not ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempts = Attempts(path.with_name(f".{path.stem}.started"))
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
        self.attempts.read()
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
        self.attempts.clear()

    def _drop_torn_line(self) -> None:
        # A process that was killed, or had no space left, may have written half a line; it must not join the next.
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)


class Attempts:
    """Inputs that have started and not ended, on disk: after a crash the next start knows where the process ended.

    The file is not flushed to the disk's platters: it is needed after the end of a process, not of the machine.

    Args:
        path: Its file, which is there only while there are such inputs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._lock = Lock()

    def read(self) -> None:
        """Read what the process before has left."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._before = {str(name): int(count) for name, count in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._before = {}

    def before(self, path: Path) -> int | None:
        """Count the starts of an input in which an earlier process ended; 0 where others were begun beside it."""
        return self._before.get(text_of(path))

    def only(self, *paths: Path) -> None:
        """Note that the first of these inputs is started, and the others prepared; what was before has ended."""
        names = list(map(text_of, paths))
        self._note({name: int(place == 0) for place, name in enumerate(names)}, ended=self._running.keys() - names)

    @contextmanager
    def during(self, path: Path, *, is_alone: bool) -> Iterator[None]:
        """Note one input more as begun within the block, from any thread; a start only if it is alone."""
        self._note({text_of(path): int(is_alone)})
        try:
            yield
        finally:
            self._note({}, ended={text_of(path)})

    def clear(self) -> None:
        """Forget all."""
        self._note({}, ended=self._before.keys() | self._running.keys())

    def _note(self, begun: Mapping[str, int], ended: Set[str] = frozenset()) -> None:
        with self._lock, writing(self._path):
            self._running |= begun
            for name in ended:
                self._running.pop(name, None)
                self._before.pop(name, None)
            starts = {name: self._before.get(name, 0) + self._running.get(name, 0)
                      for name in self._before.keys() | self._running.keys()}  # fmt: skip
            if not starts:
                self._path.unlink(missing_ok=True)
                return
            beside = self._path.with_suffix(".new")
            beside.write_text(json.dumps(starts), encoding="utf-8")
            beside.replace(self._path)


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
    status = path.stat()
    return Output(
        file=path.relative_to(folder).as_posix(),
        size=status.st_size,
        sha256=sha256(path),
        modified_ns=status.st_mtime_ns,
        ends=_ends(path),
    )


def fault_of(made: Output, folder: Path, *, reads_all: bool = False) -> str:
    """Describe the damage of an output file; empty when it is whole.

    All of it is read only where its time of change is not the one that was noted, or the ledger has none.

    Args:
        made: What the ledger knows of it.
        folder: Folder of the batch.
        reads_all: Read all of it in any case.
    """
    path = folder / made.file
    if not path.is_file():
        return f"its output '{made.file}' is missing"
    status = path.stat()
    is_known = made.modified_ns == status.st_mtime_ns and made.ends is not None and not reads_all
    is_same = _ends(path) == made.ends if is_known else sha256(path) == made.sha256
    if status.st_size != made.size or not is_same:
        return f"its output '{made.file}' is not what was written"
    return ""


def _ends(path: Path) -> str:
    """Hash the first and the last 4 KiB of a file."""
    with path.open("rb") as file:
        digest = blake2b(file.read(_ENDS_BYTES), digest_size=16)
        file.seek(max(0, os.fstat(file.fileno()).st_size - _ENDS_BYTES))
        digest.update(file.read(_ENDS_BYTES))
    return digest.hexdigest()


def _records(path: Path) -> Iterator[Record]:
    for line in path.read_bytes().splitlines():
        try:
            yield Record.model_validate_json(line)
        except ValidationError:
            continue
