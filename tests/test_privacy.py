"""A whole job with every name look-up and every connection beyond the loopback refused: nothing is even tried."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.contract import TinyTask

ROOT = Path(__file__).resolve().parents[1]
TASKS = sorted(path.parent.name for path in (ROOT / "pipelines").glob("*/pipeline.py"))
# Several commands in one process, as each would spend most of its time on imports.
COMMANDS = """
import importlib, json, sys
main = importlib.import_module(f"pipelines.{sys.argv[1]}.__main__").main
for command in json.loads(sys.argv[2]):
    code = main(command)
    if code:
        sys.exit(f"{command[0]} ended with {code}")
"""
# A look-up, a connection and a datagram, from the process and from a child of it.
TALKATIVE = """
import socket, subprocess, sys
def attempt(action):
    try:
        action()
    except OSError:
        pass
attempt(lambda: socket.getaddrinfo("example.com", 443))
attempt(lambda: socket.socket().connect(("192.0.2.1", 443)))
attempt(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 53)))
if len(sys.argv) < 2:
    subprocess.run([sys.executable, __file__, "child"], check=True)
"""


def _without_route() -> list[str]:
    """The words that put a command into a network namespace of its own, where that is allowed."""
    words = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") and not subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        return words
    return []


def _traced(trace: Path) -> list[str]:
    """The words that write down what a command and its children, libraries of C included, ask the kernel to send."""
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    words = ["strace", "--seccomp-bpf", "-f", "-qq", "-e", calls, "-o", str(trace)]
    if shutil.which("strace") and not subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        return words
    return []


def _attempts(folder: Path, command: list[str], prefix: list[str]) -> list[str]:
    """What ``command`` and its children tried to reach; it has to end well."""
    record = folder / "attempts.txt"
    paths = f"{ROOT / 'tests' / 'refuse_network'}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PYTHONPATH": paths, "NETWORK_ATTEMPTS": str(record), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*prefix, sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return _lines(record)


def _job(task: str, folder: Path) -> list[str]:
    """Train with loader processes, predict, report and verify, on data that is made here and now."""
    tiny: TinyTask = importlib.import_module(f"tests.pipelines.{task}.tiny").TASK
    data, run = tiny.make_data(folder / "data"), folder / "run"
    inputs = tiny.inputs(data)
    words = [*tiny.words(data), "train.workers=2", "train.epochs=1", "train.tensorboard=true"]
    commands = [
        ["train", "--out", str(run), *words],
        ["predict", f"--checkpoint={run / 'model'}", f"--input={inputs}", f"--out={folder / 'found'}"],
        ["report", "--run", str(run)],
        ["verify", str(run / "model")],
    ]
    return ["-c", COMMANDS, task, json.dumps(commands)]


def test_refusal__counts_the_process_and_its_children(tmp_path: Path) -> None:
    script = tmp_path / "talkative.py"
    script.write_text(TALKATIVE)
    attempts = _attempts(tmp_path, [str(script)], [])
    assert [line.split()[1] for line in attempts] == 2 * ["socket.getaddrinfo", "socket.connect", "socket.sendto"]
    assert len({line.split()[0] for line in attempts}) == 2


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=() if task == "pretrain" else pytest.mark.slow) for task in TASKS]
)
def test_job__tries_nothing(task: str, tmp_path: Path) -> None:
    job = _job(task, tmp_path)
    trace = tmp_path / "trace.txt"
    namespace, tracer = _without_route(), _traced(trace)
    assert _attempts(tmp_path, job, [*namespace, *tracer]) == []
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "found" / "summary.html").exists()
    assert [line for line in _lines(trace) if "AF_INET" in line and not _is_loopback(line)] == []
    assert not tracer or _lines(trace)
    if not (namespace and tracer):
        pytest.skip("Python tried nothing; libraries below it were not looked at, which needs strace and unshare --net")


def _is_loopback(line: str) -> bool:
    return '"127.0.0.1"' in line or '"::1"' in line


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
