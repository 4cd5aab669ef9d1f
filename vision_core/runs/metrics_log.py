"""Metrics of a run: ``metrics.jsonl`` and, if ``train.tensorboard`` is set, TensorBoard."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_core.files import write_atomic


class RunLog:
    """Writer of the metrics of one run folder."""

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        self._metrics = folder / "metrics.jsonl"
        self._writer = _tensorboard(folder) if tensorboard else None

    def forget_after(self, step: int) -> None:
        """Remove the metrics after ``step``, which a resumed run computes again."""
        if not self._metrics.exists():
            return
        lines = self._metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        write_atomic(self._metrics, "".join(line + "\n" for line in kept))

    def metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Write a line of ``metrics.jsonl``."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}  # JSON has no NaN
        row = {"step": step, "epoch": epoch, "time": round(time.time(), 3), **finite}
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the TensorBoard writer."""
        if self._writer:
            self._writer.close()


def _tensorboard(folder: Path) -> Any:  # noqa: ANN401 (an untyped library's object)
    from vision_core.optional import require

    writer = require("torch.utils.tensorboard", "train.tensorboard is on")
    return writer.SummaryWriter(str(folder / "tensorboard"))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
