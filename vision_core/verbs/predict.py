"""The verb ``predict``: a bundle over a file or a folder, through the batch engine."""

import argparse
import shlex
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vision_core import bundle as bundles
from vision_core.batch import BatchJob, run_batch
from vision_core.config import Config, fingerprint
from vision_core.errors import DataError
from vision_core.ledger import Record
from vision_core.pipeline import Pipeline
from vision_core.runlog import Progress, say
from vision_core.runtime import launch

Build = Callable[[], Pipeline[Any]]


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Plan, predict one input after the other, and merge the tables."""
    task = config_class.task
    card = bundles.read_card(arguments.checkpoint, task)
    pipeline = build()
    inputs = _inputs(pipeline, arguments.input)
    device = launch(arguments.device or "auto").device
    places = [f"--checkpoint={arguments.checkpoint}", f"--input={arguments.input}", f"--out={arguments.out}"]
    arguments.resume_command = shlex.join(["python", "-m", f"pipelines.{task}", "predict", *places])
    job = BatchJob(
        inputs=inputs,
        out=arguments.out,
        make_predictor=partial(pipeline.predictor, arguments.checkpoint, device),
        fingerprint=fingerprint(card.hashes),
        version=version("domainsight"),
        columns=pipeline.columns,
        strict=arguments.strict or arguments.on_error == "stop",
        overwrite=arguments.overwrite,
    )
    with _Shown() as shown:
        summary = run_batch(job, shown.tell)
    pipeline.conclude(arguments.out)
    for line in summary.lines():
        say(line)
    say(f"Look at {arguments.out / 'summary.html'}, or at the pictures in {arguments.out / 'outputs'}.")
    return summary.exit_code


def _inputs(pipeline: Pipeline[Any], path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError(f"--input '{path}' does not exist.")
    return pipeline.inputs(path)


class _Shown:
    """The progress of a batch: a bar that starts with the first input, and a line per failure."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def __enter__(self) -> "_Shown":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.close()

    def tell(self, record: Record, number: int, total: int) -> None:
        """One input is done or failed."""
        if self._bar is None or number == 1:
            self._bar = Progress(total, "predict", "input")
        if record.status == "failed":
            say(f"failed: {record.reason}")
        self._bar.advance()
