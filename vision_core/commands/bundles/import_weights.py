"""The verb ``import-weights``: a bundle from a foreign checkpoint."""

import argparse
from pathlib import Path

from vision_core.bundles.bundle import read_card
from vision_core.bundles.card import CARD_FILE
from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import command_line, say
from vision_core.errors import CheckpointError, UsageError, one_line
from vision_core.pipeline import Build


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Read the checkpoint, print the inferred settings, write the bundle."""
    out: Path = arguments.out
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not _is_bundle(out)):
        raise UsageError(f"'{out}' exists and is no bundle, so it is not replaced. Give another --out.")
    if _is_bundle(out) and not arguments.overwrite:
        raise UsageError(f"'{out}' holds a bundle; use --overwrite to replace it, or give another --out.")
    config = configs.load(config_class, None, arguments.words)
    for line in build().import_weights(arguments.file, config, out, trusted=arguments.i_trust_this_file):
        say(line)
    check = command_line(["python", "-m", f"pipelines.{config_class.task}", "verify", str(out)])
    say(f"Bundle: {one_line(str(out))}. Check it: {check}")
    return 0


def _is_bundle(folder: Path) -> bool:
    """Tell whether a folder holds a card of ours: others name files ``card.json`` too."""
    try:
        return (folder / CARD_FILE).is_file() and bool(read_card(folder).task)
    except CheckpointError:
        return False
