"""Runs a function in two real processes that speak through Gloo, as ``torchrun`` would start them."""

import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

from tests.forked import CONTEXT
from vision_core.console import be_silent
from vision_core.training import distributed
from vision_core.training.runtime import Runtime

TWO = 2


def run_two(action: Callable[..., None], *arguments: Any, seconds: float = 120) -> list[int | None]:  # noqa: ANN401
    """Call ``action(runtime, *arguments)`` in two processes; returns their exit codes, none where one hung."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [CONTEXT.Process(target=_enter, args=(rank, port, action, arguments)) for rank in range(TWO)]
    for child in children:
        child.start()
    for child in children:
        child.join(seconds)
    codes = [child.exitcode for child in children]
    for child in children:
        child.kill()
    return codes


def _enter(rank: int, port: int, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(TWO)}
    device = torch.device("cpu")
    distributed.join(device)
    if rank:
        be_silent()
    try:
        action(Runtime(device=device, rank=rank, world_size=TWO), *arguments)
    except Exception:
        traceback.print_exc()
        sys.exit(7)
    distributed.leave()
