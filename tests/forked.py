"""Processes forked from one that has read torch and the pipelines: reading them takes longer than most commands.

It is started once for all processes of a run of the tests, or, where there is but one, when it is first needed. What is
forked is a process like any other: it can be killed and limited, and has its own standard streams.
"""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.distributed.tensor",
        "vision_core.training.loop",
        "vision_core.images.untrusted",
        "vision_core.slides.reading.gate.inspection",
        "vision_core.bundles.unpickling",
        *(f"pipelines.{task}.pipeline" for task in ("sfod", "wsi", "pretrain", "ultrasound")),
        "apps.hub",
    ]
)
_ADDRESS = "DOMAINSIGHT_FORKED_FROM"  # variable with the socket of the process that all processes of pytest fork from

_starting = threading.Lock()


def forked(target: Callable[..., None], *arguments: Any, daemon: bool = False) -> BaseProcess:  # noqa: ANN401
    """A process that will call ``target(*arguments)``."""
    with _starting:
        _start_parent()
    return CONTEXT.Process(target=target, args=arguments, daemon=daemon)


def share() -> None:
    """Start what others are forked from for the processes of pytest that this one will start, too."""
    _start_parent()
    os.environ[_ADDRESS] = forkserver._forkserver._forkserver_address  # type: ignore[attr-defined]


@cache
def _start_parent() -> None:
    """Start what others are forked from, or find it; what its imports warn of is in no test's output."""
    if address := os.environ.get(_ADDRESS):
        server: Any = forkserver._forkserver
        server._forkserver_address, server._forkserver_alive_fd = address, os.open(os.devnull, os.O_WRONLY)
        server.ensure_running = resource_tracker.ensure_running  # what it starts for itself; the rest runs
        return
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with mock.patch.object(tempfile, "tempdir", None):  # a test may have its own, and the socket has to stay
            forkserver.ensure_running()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


class Forked:
    """``python WORDS``, in the root of the project and on one thread, with the methods of ``subprocess.Popen``.

    Args:
        words: ``-c CODE``, ``-m MODULE`` or a script, and its arguments.
        before: Called in the process before all else.
    """

    def __init__(self, words: Sequence[str], before: Callable[[], None] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._process = forked(_run, list(words), before, self._folder.name)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; returns what it wrote.

        Raises:
            subprocess.TimeoutExpired: It has not ended; it is killed.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return self.so_far()

    def so_far(self) -> tuple[str, str]:
        """What it has written."""
        files = [Path(self._folder.name) / name for name in ("out", "err")]
        out, err = (path.read_text(encoding="utf-8") if path.exists() else "" for path in files)
        return out, err


def run(words: Sequence[str], seconds: float = 120) -> tuple[str, str]:
    """Run ``python WORDS`` to a good end; returns what it wrote to its standard streams."""
    process = Forked(words)
    out, err = process.communicate(seconds)
    assert process.returncode == 0, err
    return out, err


def _run(words: list[str], before: Callable[[], None] | None, folder: str) -> None:
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    if before:
        before()
    kind, *rest = words
    module: dict[str, Any] = {"__name__": "__main__"}
    try:
        if kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), module)
        elif kind == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(kind, run_name="__main__")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
