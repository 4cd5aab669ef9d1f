"""The real command: ``torchrun`` starts two processes of a task's verb ``train``."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.2


def start(task: str, out: Path, words: Sequence[str]) -> "subprocess.Popen[str]":
    """``torchrun --standalone --nproc-per-node 2 -m pipelines.<task> train --out OUT WORDS``."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*command, "-m", f"pipelines.{task}", "train", "--out", str(out), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).resolve().parents[2],
    )


def finish(process: "subprocess.Popen[str]", seconds: float = 300) -> tuple[int, str]:
    """Exit code and all that was said."""
    try:
        said, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, said


def wait_for_steps(run: Path, steps: int, seconds: float = 300) -> None:
    """Return when ``metrics.jsonl`` has so many lines and there is a checkpoint."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        metrics = run / "metrics.jsonl"
        if (run / "last.pt").exists() and metrics.exists() and len(metrics.read_text().splitlines()) >= steps:
            return
        time.sleep(_POLL_SECONDS)
    raise AssertionError(f"{run} has not come to step {steps} in {seconds} seconds")


def pid_of(process: "subprocess.Popen[str]", rank: int) -> int:
    """The process of a rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in map(int, children):
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return pid
    raise AssertionError(f"no process of rank {rank} among {children}")


def facts(run: Path) -> dict[str, Any]:
    """``run.json``."""
    found: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return found
