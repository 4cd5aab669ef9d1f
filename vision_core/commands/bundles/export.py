"""The verb ``export``: a bundle as one file for other programs."""

import argparse
import mmap
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
    if out.exists() and not _is_export(out):
        raise UsageError(f"'{out}' exists and is no export of this package, so it is not replaced. Give another --out.")
    if out.exists() and not arguments.overwrite:
        raise UsageError(f"'{out}' exists; use --overwrite to replace that file, or another --out.")
    bundles.read_card(arguments.checkpoint, config_class.task)
    given = build().exportable(arguments.checkpoint, arguments.size)
    done = export(given, arguments.format, out)
    for name, shape in done.shapes.items():
        say(f"Input '{name}': {', '.join(str(each) for each in shape)}. {given.preprocessing}")
    say(f"Outputs: {', '.join(given.outputs)}; classes: {', '.join(given.card.classes)}.")
    say(f"Compared on {len(done.compared)} sizes: relative deviation {done.deviation:.2g}.")
    if done.golden_deviation is not None:
        say(f"Golden input of the bundle, from raw values on: relative deviation {done.golden_deviation:.2g}.")
    say(f"Written to {done.path}. {RESEARCH_NOTICE}")
    return 0


def _is_export(path: Path) -> bool:
    """Tell whether a file holds the metadata of an export."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return all(content.find(name) >= 0 for name in (b"weights_sha256", b"intended_use"))
