"""The verb ``evaluate``: a bundle scored on a labelled list."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vision_core.bundles import bundle as bundles
from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.errors import UsageError
from vision_core.evaluation.rows import table, write_rows
from vision_core.files import writing
from vision_core.pipeline import Pipeline
from vision_core.runs.folder import RunFolder

Build = Callable[[], Pipeline[Any]]


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Score, print, and with ``--out`` write the rows and pictures."""
    if arguments.out:
        _check_out(arguments.out)
    card = bundles.read_card(arguments.checkpoint, config_class.task)
    if arguments.config:
        config = configs.load(config_class, arguments.config, arguments.words)
    else:
        origin = f"{arguments.checkpoint}/card.json"
        config = configs.of_bundle(config_class, card.config, arguments.words, origin)
    rows = build().evaluate(config, {card.method: arguments.checkpoint}, arguments.out and arguments.out / "pictures")
    say(table(rows))
    if arguments.out:
        write_rows(arguments.out / "evaluation.json", rows)
        say(f"Written to {arguments.out}.")
    return 0


def _check_out(out: Path) -> None:
    """Before any work: the scores of a run stay its own, and the folder can be made."""
    if RunFolder(out).is_used():
        raise UsageError(f"--out {out} is a run, whose own scores would be replaced. Give another folder.")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
