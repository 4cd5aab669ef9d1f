"""The child process that works on files of unknown origin."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.forked_sandbox import real_start
from vision_core.errors import CheckpointError, InputError
from vision_core.sandbox import Limits, Sandbox

TASKS = "tests.vision_core.tasks"


@pytest.fixture(autouse=True)
def _real_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vision_core.sandbox._start", real_start)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.bin").write_bytes(b"abc")
    return tmp_path / "a.bin"


def test_run__arrays_and_value(file: Path) -> None:
    with Sandbox() as sandbox:
        answer = sandbox.run(f"{TASKS}:count_bytes", file, factor=2)
    assert answer.value == {"length": 6}
    np.testing.assert_array_equal(answer.arrays["bytes"], np.frombuffer(b"abc", np.uint8))
    assert answer.arrays["empty"].shape == (0, 3)
    assert answer.arrays["empty"].dtype == np.dtype(np.float32)
    assert answer.arrays["bytes"].flags.writeable


def test_run__errors_keep_their_kind(file: Path) -> None:
    with Sandbox() as sandbox:
        with pytest.raises(CheckpointError, match=r"a\.bin' is no checkpoint"):
            sandbox.run(f"{TASKS}:refuse", file)
        with pytest.raises(OSError, match="Input/output error") as raised:
            sandbox.run(f"{TASKS}:fail_to_read", file)
        assert raised.value.errno == 5
        assert sandbox.run(f"{TASKS}:count_bytes", file).value == {"length": 3}


def test_run__that_hangs_is_ended_and_the_next_is_done(file: Path) -> None:
    with Sandbox(Limits(seconds=0.5)) as sandbox:
        with pytest.raises(InputError, match=r"a\.bin' took longer than 0\.5 s"):
            sandbox.run(f"{TASKS}:wait", file)
        assert sandbox.run(f"{TASKS}:count_bytes", file).value == {"length": 3}


def test_run__that_always_crashes_is_named_and_the_next_is_done(tmp_path: Path, file: Path) -> None:
    (tmp_path / "bad.bin").write_text("99")
    with Sandbox() as sandbox:
        with pytest.raises(InputError, match=r"bad\.bin' made the decoder crash \(SIGSEGV\)"):
            sandbox.run(f"{TASKS}:die", tmp_path / "bad.bin")
        assert sandbox.run(f"{TASKS}:count_bytes", file).value == {"length": 3}
    assert (tmp_path / "bad.bin").read_text() == "97"  # tried twice


def test_run__that_was_killed_once_is_done_by_a_new_child(tmp_path: Path) -> None:
    (tmp_path / "unlucky.bin").write_text("1")
    with Sandbox() as sandbox:
        np.testing.assert_array_equal(sandbox.run(f"{TASKS}:die", tmp_path / "unlucky.bin").array, [1])


def test_run__too_much_memory_is_refused(file: Path) -> None:
    with Sandbox(Limits(memory_mib=256)) as sandbox:
        with pytest.raises(InputError, match=r"a\.bin' needs more than 256 MiB"):
            sandbox.run(f"{TASKS}:take_memory", file)
        assert sandbox.run(f"{TASKS}:count_bytes", file).value == {"length": 3}


@pytest.mark.parametrize(("task", "told"), [("hold_objects", "nonsense"), ("answer_much", "holds 3 MiB of values")])
def test_run__answer_that_is_not_sane_is_refused(file: Path, task: str, told: str) -> None:
    with Sandbox(Limits(answer_mib=2)) as sandbox, pytest.raises(InputError, match=told):
        sandbox.run(f"{TASKS}:{task}", file)


def test_run__no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "port").write_text(str(server.getsockname()[1]))
        with Sandbox() as sandbox:
            in_python, in_a_program = sandbox.run(f"{TASKS}:connect", tmp_path / "port").value
    assert "no network" in in_python
    if subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode == 0:
        assert in_a_program != "0"


def test_sandbox__no_network_without_the_rights_of_an_administrator_either(file: Path) -> None:
    without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"] if os.geteuid() == 0 else []
    try:
        subprocess.run([*without, "unshare", "-rn", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine allows no user namespace: {error}")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom vision_core.sandbox import Sandbox\n"
        f"with Sandbox() as sandbox:\n    sandbox.run('{TASKS}:count_bytes', Path(sys.argv[1]))\n"
        "    print(*(os.readlink(f'/proc/{each}/ns/net') for each in ('self', sandbox._child._process.pid)))\n"
    )
    command = [*without, sys.executable, "-c", code, str(file)]
    root = Path(__file__).parents[2]
    ours, childs = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout.split()
    assert ours != childs


def test_close__ends_the_child(file: Path) -> None:
    sandbox = Sandbox()
    sandbox.run(f"{TASKS}:count_bytes", file)
    assert sandbox._child is not None
    process = sandbox._child._process
    sandbox.close()
    assert process.poll() is not None


def test_sandbox__that_is_forgotten_leaves_no_child(file: Path) -> None:
    sandbox = Sandbox()
    sandbox.run(f"{TASKS}:count_bytes", file)
    assert sandbox._child is not None
    process = sandbox._child._process
    del sandbox
    assert _ends(lambda: process.poll() is not None)


def test_sandbox__child_outlives_the_thread_that_asked_first(file: Path) -> None:
    with Sandbox() as sandbox:
        thread = threading.Thread(target=sandbox.run, args=(f"{TASKS}:count_bytes", file))
        thread.start()
        thread.join()
        assert sandbox._child is not None
        process = sandbox._child._process
        time.sleep(0.3)
        assert process.poll() is None
        sandbox.run(f"{TASKS}:count_bytes", file)
        assert sandbox._child._process is process


@pytest.mark.parametrize("task", ["wait", "burn"])
def test_sandbox__child_ends_with_a_parent_that_is_killed(file: Path, task: str) -> None:
    code = (
        "import sys, threading\nfrom pathlib import Path\nfrom vision_core.sandbox import Sandbox\n"
        f"sandbox = Sandbox()\nsandbox.run('{TASKS}:count_bytes', Path(sys.argv[1]))\n"
        "print(sandbox._child._process.pid, flush=True)\n"
        f"sandbox.run('{TASKS}:{task}', Path(sys.argv[1]))\n"
    )
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True, cwd=root)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.5)  # the child is at work
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert _ends(lambda: not _is_running(child))


def _ends(is_over: Callable[[], bool]) -> bool:
    for _ in range(100):
        if is_over():
            return True
        time.sleep(0.05)
    return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
