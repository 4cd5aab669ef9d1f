"""The verb ``export``: a bundle as one file for other programs."""

import argparse
from pathlib import Path

from vision_core.bundles import bundle as bundles
from vision_core.bundles.export import SUFFIXES, export
from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.errors import UsageError
from vision_core.pipeline import Build
from vision_core.results import RESEARCH_NOTICE


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Write the file, and print its inputs and its numerical deviation."""
    out: Path = arguments.out
    if out.suffix.lower() != SUFFIXES[arguments.format]:
        raise UsageError(
            f"--out '{out}' does not end in '{SUFFIXES[arguments.format]}' of --format {arguments.format}."
        )
    if out.exists() and not (arguments.overwrite and out.is_file()):
        raise UsageError(f"{out} exists; use --overwrite to replace that file, or another --out.")
    bundles.read_card(arguments.checkpoint, config_class.task)
    given = build().exportable(arguments.checkpoint, arguments.size)
    done = export(given, arguments.format, out)
    for name, shape in done.shapes.items():
        say(f"Input '{name}': {', '.join(str(each) for each in shape)}. {given.preprocessing}")
    say(f"Outputs: {', '.join(given.outputs)}; classes: {', '.join(given.card.classes)}.")
    say(f"Compared on {len(done.compared)} sizes: relative deviation {done.deviation:.2g}.")
    say(f"Written to {done.path}. {RESEARCH_NOTICE}")
    return 0
