"""The verb ``predict``: a bundle on a file or a folder, through the batch engine."""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vision_core.batch.engine import run_batch
from vision_core.batch.job import BatchJob
from vision_core.batch.ledger import read_ledgers
from vision_core.batch.neutral_names import neutral_inputs
from vision_core.batch.progress import BatchProgress
from vision_core.bundles import bundle as bundles
from vision_core.bundles.card import Card
from vision_core.config.loading import fingerprint, of_bundle
from vision_core.config.schema import Config, ConfigT
from vision_core.console import command_line, say
from vision_core.dicom.reader import NAMES_PATIENT
from vision_core.errors import ConfigError, DataError, UsageError, one_line
from vision_core.pipeline import Build, Pipeline, load_proven
from vision_core.training.runtime import launch


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Predict every input and write the tables."""
    task = config_class.task
    content = bundles.load(arguments.checkpoint, task)  # read whole, so that damage is reported before a long plan
    card, content = content.card, replace(content, tensors={})
    config = _settings(arguments, card, config_class)
    pipeline = build()
    inputs = _inputs(pipeline, arguments.input)
    notes = pipeline.remarks(arguments.input, inputs, config)
    device = launch(arguments.device or "auto").device
    places = [f"--checkpoint={arguments.checkpoint}", f"--input={arguments.input}", f"--out={arguments.out}"]
    places += [f"--id-map={arguments.id_map}"] if arguments.id_map else []
    places += [f"--device={arguments.device}"] if arguments.device else []
    words = getattr(arguments, "words", [])
    arguments.resume_command = command_line(["python", "-m", f"pipelines.{task}", "predict", *places, *words])
    with _named(arguments, inputs, notes) as (inputs, source, notes), BatchProgress("predict") as shown:
        job = BatchJob(
            inputs=inputs,
            out=arguments.out,
            make_predictor=partial(
                load_proven, partial(pipeline.predictor, arguments.checkpoint, device, config), content
            ),
            fingerprint=fingerprint([card.hashes, words]),
            version=version("domainsight"),
            source=source,
            follows=pipeline.follows(config),
            inspect=pipeline.inspector(config),
            columns=pipeline.columns,
            notes=notes,
            titles=card.class_titles,
            files=pipeline.result_files,
            strict=arguments.strict or arguments.on_error == "stop",
            overwrite=arguments.overwrite,
            check_outputs=arguments.check_outputs,
        )
        summary = run_batch(job, shown)
        pipeline.conclude(arguments.out, inputs)
    for line in [*summary.lines(), *_name_warning(arguments.out)]:
        say(one_line(line))
    say(one_line(f"Look at {arguments.out / 'summary.html'}, or at the pictures in {arguments.out / 'outputs'}."))
    return summary.exit_code


@contextmanager
def _named(
    arguments: argparse.Namespace, inputs: list[Path], notes: Sequence[str]
) -> Iterator[tuple[list[Path], Path, Sequence[str]]]:
    """Provide inputs, their source and notes for the results; with ``--id-map`` none of them holds a name."""
    if arguments.id_map is None:
        yield inputs, arguments.input, notes
        return
    if arguments.input.suffix.lower() == ".csv":
        raise UsageError("--id-map takes a file or a folder as --input: a list finds its files by their names.")
    for note in notes:  # they name files, so they go to the terminal alone
        say(one_line(note))
    with neutral_inputs(inputs, arguments.id_map, arguments.out) as links:
        yield links, links[0].parent.parent, ()


def _name_warning(out: Path) -> list[str]:
    """Tell that names of files, after which outputs are named, hold a patient's name or number."""
    named = sum(
        any(NAMES_PATIENT in str(value) for value in record.values.values())
        for record in read_ledgers(out / "ledger").values()
    )
    if not named:
        return []
    return [
        f"In the name of {named} of the inputs stands the patient's name or number, and outputs are named after it. "
        "Predict into a new --out with --id-map FILE: it calls them case-0001 and so on, and keeps which is which in "
        "FILE."
    ]


def _settings(arguments: argparse.Namespace, card: Card, config_class: type[ConfigT]) -> ConfigT | None:
    """Build the settings of inference; None where the task has none."""
    if not config_class.at_inference:
        return None
    words: list[str] = arguments.words
    if strange := [word for word in words if not word.startswith(config_class.at_inference)]:
        raise ConfigError(
            f"'{strange[0]}' is a setting of training, which the bundle has fixed. predict takes "
            f"{', '.join(config_class.at_inference)}…; train --show-config lists them."
        )
    if arguments.id_map and (by_name := [word for word in words if word.startswith(config_class.by_name)]):
        raise ConfigError(
            f"'{by_name[0]}' finds files by the names of the inputs, which --id-map takes away. Leave one."
        )
    if config_class.input_list and arguments.input.suffix.lower() == ".csv":
        words = [*words, f"{config_class.input_list}={json.dumps(str(arguments.input))}"]
    return of_bundle(config_class, card.config, words, f"{arguments.checkpoint}/card.json")


def _inputs(pipeline: Pipeline[Any], path: Path) -> list[Path]:
    if path.is_file() and path.suffix.lower() != ".csv":
        return [path]
    if not path.exists():
        raise DataError(f"--input '{path}' does not exist.")
    return pipeline.inputs(path)
