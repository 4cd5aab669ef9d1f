"""Runs a function in two real processes that speak through Gloo, as ``torchrun`` would start them."""

import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.forked import forked
from vision_core.console import be_silent
from vision_core.training import distributed
from vision_core.training.runtime import Runtime

TWO = 2


def run_two(action: Callable[..., None], *arguments: Any, seconds: float = 120) -> list[int | None]:  # noqa: ANN401
    """Call ``action(runtime, *arguments)`` in two processes; returns their exit codes, none where one hung."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        children = [forked(_enter, rank, port, action, arguments, told) for rank in range(TWO)]
        for child in children:
            child.start()
        for child in children:
            child.join(seconds)
        codes = [child.exitcode for child in children]
        for child in children:
            child.kill()
        if told.exists():
            print(told.read_text(encoding="utf-8"))
    return codes


def _enter(rank: int, port: int, action: Callable[..., None], arguments: tuple[Any, ...], told: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(TWO)}
    device = torch.device("cpu")
    distributed.join(device)
    if rank:
        be_silent()
    try:
        action(Runtime(device=device, rank=rank, world_size=TWO), *arguments)
    except Exception:
        with told.open("a", encoding="utf-8") as file:
            file.write(f"Process {rank}: {traceback.format_exc()}")
        sys.exit(7)
    distributed.leave()
