"""The verb ``evaluate``: scores of a bundle on a labelled list."""

import argparse

from vision_core.bundles import bundle as bundles
from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.errors import UsageError
from vision_core.evaluation.rows import table, write_rows
from vision_core.files import writing
from vision_core.pipeline import Build
from vision_core.runs.folder import RunFolder


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Score a bundle and print the rows; ``--out`` writes them, with pictures."""
    if arguments.out:
        if RunFolder(arguments.out).is_used():
            raise UsageError(
                f"--out {arguments.out} is a run, whose own scores would be replaced. Give another folder."
            )
        with writing(arguments.out):
            arguments.out.mkdir(parents=True, exist_ok=True)
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
