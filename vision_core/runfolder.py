"""The folder of one training run: its lock, its names, its ``run.json``."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vision_core.errors import EnvironmentFault, UsageError
from vision_core.files import remove_leftovers, write_atomic

_OURS = ("config.yaml", "run.json", "last.pt", "last.prev.pt")


class RunFolder:
    """One run: ``config.yaml``, ``metrics.jsonl``, ``log.txt``, ``run.json``, ``last.pt``, ``model/``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model"
        self.pictures = path / "pictures"

    def is_used(self) -> bool:
        """Whether a run has been here."""
        return any((self.path / name).exists() for name in _OURS)

    def open(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ready for a run.

        Raises:
            UsageError: Another run is here and neither ``resume`` nor ``overwrite`` was asked for, or the folder holds
                other files.
            EnvironmentFault: It cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file; give a folder.")
        if self.is_used() and not (resume or overwrite):
            raise UsageError(f"{self.path} holds another run. Use --resume to go on with it, or --overwrite, or --out.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            raise EnvironmentFault(f"{self.path} cannot be written: {error.strerror}. Choose another --out.") from error
        remove_leftovers(self.path)
        if overwrite and not resume:
            self._clear()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the lock of a process that has died is taken over.

        Raises:
            UsageError: A living process trains here.
        """
        lock = self.path / "lock.json"
        holder = _holder()
        if lock.exists() and (other := _alive(lock, holder)):
            raise UsageError(f"{self.path} is in use by process {other}. Wait for it, or choose another --out.")
        write_atomic(lock, json.dumps(holder))
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)

    def describe(self, **facts: Any) -> None:  # noqa: ANN401 (whatever JSON can hold)
        """Add facts to ``run.json``."""
        path = self.path / "run.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_atomic(path, json.dumps({**known, **facts}, indent=2, ensure_ascii=False, default=str))

    def _clear(self) -> None:
        for name in (*_OURS, "metrics.jsonl", "log.txt", "evaluation.json", "report.html", "best.safetensors"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.model, self.pictures, self.path / "tensorboard"):
            shutil.rmtree(folder, ignore_errors=True)


def started() -> dict[str, Any]:
    """What ``run.json`` says of the start: command, commit, time."""
    return {"command": " ".join(sys.orig_argv[1:]), "commit": _commit(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def _commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    found = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return found.stdout.strip() or None


def _holder() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "boot": _boot_id(), "start": _start_time(os.getpid())}


def _alive(lock: Path, ours: dict[str, Any]) -> str:
    """The holder's name when it may still be running, else an empty text."""
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
        name = f"{holder['pid']} on {holder['host']}"
        if holder["host"] != ours["host"]:
            return name
        same_boot = holder["boot"] == ours["boot"]
        running = _start_time(int(holder["pid"])) == holder["start"] is not None
    except (ValueError, KeyError, OSError, TypeError):
        return ""
    return name if same_boot and running and int(holder["pid"]) != ours["pid"] else ""


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
