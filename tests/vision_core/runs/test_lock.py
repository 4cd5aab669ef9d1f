"""The lock of a run folder: two processes, interleaved at every line, never both hold it."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from vision_core import runs
from vision_core.errors import UsageError
from vision_core.runs.folder import RunFolder

FOLDER = str(Path(runs.__file__).parent)
MANY_LINES = 200


@contextmanager
def halting_at(line: int, reached: Event, go_on: Event) -> Iterator[None]:
    """Halt at the ``line``-th line that is run in the package ``runs``, until told to go on."""
    seen = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:  # noqa: ANN401
        nonlocal seen
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line":
            seen += 1
            if seen == line:
                reached.set()
                go_on.wait(20)
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)
        reached.set()


def enter_halting(folder: Path, line: int, events: tuple[Event, Event, Event], told: Connection) -> None:
    reached, go_on, leave = events
    with suppress(UsageError), halting_at(line, reached, go_on), RunFolder(folder).locked():
        sys.settrace(None)
        told.send("in")
        reached.set()
        leave.wait(20)
    told.send("out")


def is_entered(folder: Path, events: tuple[Event, Event, Event], line: int) -> tuple[bool, bool]:
    """Whether the halted process and this one hold the lock at the same time, and whether the first was halted."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=enter_halting, args=(folder, line, events, theirs))
    child.start()
    reached, go_on, leave = events
    assert reached.wait(20)
    was_halted = not ours.poll(0)
    try:
        with RunFolder(folder).locked():
            go_on.set()
            answer = ours.recv()
            both = answer == "in"
    except UsageError:
        go_on.set()
        both = False
    leave.set()
    child.join(20)
    return both, was_halted


@pytest.mark.slow
def test_locked__two_processes_interleaved_at_any_line_never_both_enter(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for line in range(1, MANY_LINES):
        folder = tmp_path / str(line)
        folder.mkdir()
        (folder / "lock.json").write_text("{}")  # of a process that is gone
        events = context.Event(), context.Event(), context.Event()
        both, was_halted = is_entered(folder, events, line)
        assert not both, f"halted before line {line}"
        if not was_halted:
            break
    assert 5 < line < MANY_LINES - 1


def test_locked__what_the_holder_wrote_is_not_emptied_by_one_who_asks(tmp_path: Path) -> None:
    """As a file that is opened to be written would be."""
    with RunFolder(tmp_path).locked():
        before = (tmp_path / "lock.json").read_bytes()
        assert b'"pid"' in before
        code = (
            "import sys\nfrom pathlib import Path\nfrom vision_core.runs.folder import RunFolder\n"
            "with RunFolder(Path(sys.argv[1])).locked():\n    pass"
        )
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert f"is in use by process {os.getpid()} on" in other.stderr
        assert (tmp_path / "lock.json").read_bytes() == before


def test_locked__children_of_a_killed_process_do_not_hold_it(tmp_path: Path) -> None:
    """Such as loader processes, which outlive it for a while."""
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom vision_core.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n"
        "    child = os.fork()\n"
        "    if child == 0:\n        time.sleep(20)\n        os._exit(0)\n"
        "    print(child, flush=True)\n    time.sleep(0.2)\n    os.kill(os.getpid(), 9)"
    )
    found = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert found.stdout is not None
    child = int(found.stdout.readline())
    try:
        assert found.wait(20) == -9
        with RunFolder(tmp_path).locked():
            pass
    finally:
        os.kill(child, 9)


@pytest.mark.parametrize("ask", ["check", "locked"])
def test_locked__a_question_of_a_moment_keeps_nobody_out(tmp_path: Path, ask: str) -> None:
    import fcntl

    (tmp_path / "lock.json").write_text("")
    with (tmp_path / "lock.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        started = time.monotonic()
        with pytest.raises(UsageError, match="is in use by process unknown"):
            if ask == "check":
                RunFolder(tmp_path).check(resume=True, overwrite=False)
            else:
                with RunFolder(tmp_path).locked():
                    pass
        assert time.monotonic() - started < 5
    with RunFolder(tmp_path).locked():
        pass
