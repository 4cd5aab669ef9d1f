"""What the tests of the sandbox have its child do."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import CheckpointError


def count_bytes(path: Path, factor: int = 1) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
    content = np.frombuffer(path.read_bytes(), np.uint8)
    return {"bytes": content, "empty": np.empty((0, 3), np.float32)}, {"length": factor * len(content)}


def wait(path: Path) -> NDArray[Any]:
    time.sleep(60)
    return np.zeros(1)


def burn(path: Path) -> NDArray[Any]:
    while True:
        pass


def die(path: Path) -> NDArray[Any]:
    """Crash at every file, or where the file says how often, as often as that."""
    left = int(path.read_text() or "9")
    if left:
        path.write_text(str(left - 1))
        os.kill(os.getpid(), signal.SIGSEGV)
    return np.ones(1)


def refuse(path: Path) -> NDArray[Any]:
    raise CheckpointError(f"'{path}' is no checkpoint.")


def fail_to_read(path: Path) -> NDArray[Any]:
    raise OSError(5, "Input/output error")


def take_memory(path: Path) -> NDArray[Any]:
    return np.zeros(2**28)


def hold_objects(path: Path) -> NDArray[Any]:
    return np.array([path.name, None], dtype=object)


def answer_much(path: Path) -> NDArray[Any]:
    return np.zeros((3, 2**20), np.uint8)


def connect(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Try to reach the port that the file names, in Python and in a program of its own."""
    told = []
    try:
        socket.create_connection(("127.0.0.1", int(path.read_text())), timeout=5)
    except PermissionError as error:
        told.append(str(error))
    code = f"import socket; socket.create_connection(('127.0.0.1', {path.read_text()}), timeout=5)"
    told.append(str(subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode))
    return {}, told
