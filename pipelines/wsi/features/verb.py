"""The verb ``features``: the feature files of a folder or list of slides, resumed where it was stopped."""

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.wsi.cohort.slide_list import stated_mpps
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.extraction_job import feature_job
from pipelines.wsi.features.slide_processing import SlideProcessor
from vision_core.batch.engine import run_batch
from vision_core.batch.progress import BatchProgress
from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.errors import DataError
from vision_core.pipeline import Pipeline
from vision_core.training.runtime import launch

Build = Callable[[], Pipeline[Any]]


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Plan, make one file after the other, and merge the tables."""
    config = configs.load(WsiConfig, arguments.config, arguments.words)
    inputs = _inputs(build(), arguments.input)
    places = [f"--input={arguments.input}", f"--out={arguments.out}"]
    settings = [f"--config={arguments.config}"] if arguments.config else []
    arguments.resume_command = shlex.join(
        ["python", "-m", "pipelines.wsi", "features", *places, *settings, *arguments.words]
    )
    processor = SlideProcessor(config, launch(arguments.device or "auto").device, stated_mpps(_list(arguments.input)))
    processor.check()
    job = feature_job(processor, inputs, arguments.out, strict=arguments.strict, overwrite=arguments.overwrite)
    with BatchProgress("features", "slide") as shown:
        summary = run_batch(job, shown)
    for line in summary.lines():
        say(line)
    say(
        f"Train on them: python -m pipelines.wsi train data.root={arguments.out} data.features={arguments.out} "
        "data.format=features data.labels=LABELS.csv data.protocol=stratified"
    )
    return summary.exit_code


def _inputs(pipeline: Pipeline[Any], path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"--input '{path}' does not exist.")
    is_slide = path.is_file() and path.suffix.lower() != ".csv"
    return [path] if is_slide else pipeline.inputs(path)


def _list(path: Path) -> Path | None:
    return path if path.suffix.lower() == ".csv" else None
