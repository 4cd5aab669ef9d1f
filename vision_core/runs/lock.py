"""Lock of a run folder: one file, locked by the system (flock), that also names its holder.

Not by ``filelock``: this lock is gone with its file and says who holds it, also to machines whose shared disk has no
flock.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_ATTEMPTS, _WAIT_SECONDS = 5, 0.05  # a process that only asks who holds the lock has it for a moment
_held: set[int] = set()


def _let_go() -> None:
    """Close the locks of a forked child's parent: a child that outlives it would hold them."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def holding(path: Path) -> Iterator[str]:
    """Hold the lock ``path`` within the block; the system frees that of a process which was killed.

    Yields:
        The process that holds it instead, such as ``41 on host``; empty where the lock was taken.
    """
    handle = _open_locked(path)
    if handle is None:
        yield _described(path) or "unknown"
        return
    _held.add(handle)
    try:
        if other := _alive(_read(handle)):
            yield other
            return
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_ours()).encode(), 0)
        try:
            yield ""
        finally:
            path.unlink(missing_ok=True)  # before it is freed: nobody else can have taken it by now
    finally:
        if handle in _held:
            _held.remove(handle)
            os.close(handle)


def holder_of(path: Path) -> str:
    """Name the process that holds the lock ``path``; empty without one. Writes nothing."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # there is none, or it cannot be read: taking the lock then tells why
        return ""
    try:
        return _alive(_read(handle)) if _flock(handle) else _described(path) or "unknown"
    finally:
        os.close(handle)


def _open_locked(path: Path) -> int | None:
    """Open and lock the file at ``path``, made if missing; None where another process has locked it."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_WAIT_SECONDS)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # not emptied: its holder may be alive
        # The file may have been removed by its holder since it was opened: then its lock is worth nothing.
        if _flock(handle) and _is_at(handle, path):
            return handle
        os.close(handle)
    return None


def _flock(handle: int) -> bool:
    """Lock an open file; True too where the disk has no locks, so that its text alone decides."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _read(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 65536, 0))
    except (ValueError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _described(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"{holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, OSError, TypeError):
        return ""


def _alive(holder: dict[str, Any]) -> str:
    """Name the holder of an unlocked file if it may still be running: on another machine, or without flock."""
    ours = _ours()
    try:
        name = f"{holder['pid']} on {holder['host']}"
        if holder["host"] != ours["host"]:
            return name
        same_boot = holder["boot"] == ours["boot"]
        running = _start_time(int(holder["pid"])) == holder["start"] is not None
        return name if same_boot and running and int(holder["pid"]) != ours["pid"] else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _ours() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "boot": _boot_id(), "start": _start_time(os.getpid())}


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _start_time(pid: int) -> str | None:
    # Field 22 of /proc/PID/stat, counted after the command, which may hold spaces.
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
