"""The verb ``features``: extraction of the feature files of slides, with resume."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.wsi.cohort.slide_list import stated_mpps
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.extraction_job import feature_job
from pipelines.wsi.features.slide_processing import SlideProcessor
from vision_core.batch.engine import run_batch
from vision_core.batch.plan import output_names
from vision_core.batch.progress import BatchProgress
from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import command_line, say
from vision_core.errors import DataError
from vision_core.pipeline import Pipeline
from vision_core.training.runtime import launch

_SHOWN = 3

Build = Callable[[], Pipeline[Any]]


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Plan the batch, extract each slide and merge the tables."""
    config = configs.load(WsiConfig, arguments.config, arguments.words)
    slides = arguments.input
    if not slides.exists():
        raise DataError(f"--input '{slides}' does not exist.")
    is_list = slides.suffix.lower() == ".csv"
    pipeline = build()
    inputs = [slides] if slides.is_file() and not is_list else pipeline.inputs(slides)
    paths = [f"--input={slides}", f"--out={arguments.out}"]
    settings = [f"--config={arguments.config}"] if arguments.config else []
    arguments.resume_command = command_line(
        ["python", "-m", "pipelines.wsi", "features", *paths, *settings, *arguments.words]
    )
    processor = SlideProcessor(
        config, launch(arguments.device or "auto").device, stated_mpps(slides if is_list else None)
    )
    notes = pipeline.remarks(slides, inputs, config)
    job = feature_job(processor, inputs, arguments.out, strict=arguments.strict, overwrite=arguments.overwrite)
    with BatchProgress("features", "slide") as shown:
        summary = run_batch(replace(job, notes=notes), shown)
    for line in (*summary.lines(), *_renamed(inputs)):
        say(line)
    written = command_line([f"data.root={arguments.out}", f"data.features={arguments.out}"])
    say(
        f"Train on them: python -m pipelines.wsi train {written} data.format=features data.labels=LABELS.csv "
        "data.protocol=stratified"
    )
    return summary.exit_code


def _renamed(slides: Sequence[Path]) -> list[str]:
    """Tell the names of features whose slides are called alike, by which a list has to name them."""
    names = {path: name for path, name in output_names(slides).items() if name != path.stem}
    told = ", ".join(f"'{name}' of '{path}'" for path, name in list(names.items())[:_SHOWN])
    more = ", …" if len(names) > _SHOWN else ""
    return [f"{len(names)} slides are called alike; a list names their features: {told}{more}."] if names else []
