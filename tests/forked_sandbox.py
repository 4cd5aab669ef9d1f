"""Children of the sandbox, forked from a process that has read what they read: starting Python takes them longest.

They are confined and limited as those that a user's process starts. ``tests/vision_core/test_sandbox.py`` and the
commands that tests start use the real start.
"""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Connection
from unittest import mock

from tests.forked import forked
from vision_core import environment, sandbox
from vision_core.environment import keep_offline

real_start = sandbox._start


class _Child:
    """What the sandbox asks of ``subprocess.Popen``."""

    def __init__(self, line: int, limits: sandbox.Limits) -> None:
        theirs = Connection(os.dup(line))
        with theirs:
            self._process = forked(_serve, theirs, json.dumps(asdict(limits)), daemon=True)
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a child of the sandbox", timeout or 0)
        return self._process.exitcode


def forked_children() -> "mock._patch[Callable[[int, sandbox.Limits], object]]":
    """A patch, while which children of this process's sandboxes are forked; processes that it forks start their own."""
    own = os.getpid()

    def start(line: int, limits: sandbox.Limits) -> object:
        return _Child(line, limits) if os.getpid() == own else real_start(line, limits)

    return mock.patch.object(sandbox, "_start", start)


def _serve(line: Connection, limits: str) -> None:
    os.setpgid(0, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 2)
    os.chdir(sandbox._ROOT)
    environment.leave_network()
    keep_offline()
    with mock.patch("sys.argv", ["", str(line.fileno()), str(os.getppid()), limits]):
        sandbox.main()
    os._exit(0)  # the parent has closed the line; whatever was read before the fork has nothing to tidy up
