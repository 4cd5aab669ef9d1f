"""What the verbs do, for every task: the command line calls these and nothing here knows a method."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vision_core import bundle as bundles
from vision_core import config as configs
from vision_core.config import Config
from vision_core.errors import EXIT_PARTIAL, AllInputsError, UsageError
from vision_core.pipeline import Pipeline
from vision_core.runlog import Progress, say
from vision_core.running import table, write_rows
from vision_core.runtime import launch
from vision_core.train import train

__all__ = ["demo_data", "evaluate", "import_weights", "predict", "report", "train", "validate", "verify"]

Build = Callable[[], Pipeline[Any]]


def demo_data(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Write the demo's data set."""
    folder: Path = arguments.out
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; give a new folder.")
    say(build().demo_data(folder))
    task = config_class.task
    say(f"Written to {folder}. Train on it:")
    say(f"  python -m pipelines.{task} train --config configs/{task}/demo.yaml data.root={folder}")
    return 0


def validate(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Read every item once and list every fault."""
    config = configs.load(config_class, arguments.config, arguments.words)
    bar: Progress | None = None

    def tell(done: int, total: int) -> None:
        nonlocal bar
        if bar is None or done == 1:
            bar = Progress(total, "validate", "item")
        bar.advance()

    found = build().validate(config, arguments.sample, tell)
    if bar:
        bar.close()
    for each in found:
        say("\n".join(each.lines()))
    return max(_exit_code(len(each.faults), each.num_read) for each in found)


def _exit_code(faults: int, items: int) -> int:
    if not faults:
        return 0
    return EXIT_PARTIAL if faults < items else AllInputsError.exit_code


def evaluate(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Score a bundle on a labelled list."""
    from vision_core.predicting import own_card

    card = own_card(arguments.checkpoint, config_class.task)
    if arguments.config:
        config = configs.load(config_class, arguments.config, arguments.words)
    else:
        keys = {name: card.config[name] for name in config_class.model_fields if name in card.config}
        config = configs.from_mapping(config_class, keys, arguments.words, f"{arguments.checkpoint}/card.json")
    rows = build().evaluate(config, {card.method: arguments.checkpoint}, arguments.out and arguments.out / "pictures")
    say(table(rows))
    if arguments.out:
        write_rows(arguments.out / "evaluation.json", rows)
        say(f"Written to {arguments.out}.")
    return 0


def predict(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Run a bundle over a file or a folder."""
    from vision_core.predicting import predict as run_predict

    return run_predict(arguments, config_class.task, build())


def report(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Write one offline HTML file."""
    from vision_core.report import write_report

    say(f"Report: {write_report(arguments.run)}")
    return 0


def verify(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Check a bundle: hashes, numbers, golden pair."""
    content = bundles.load(arguments.bundle, config_class.task)
    predictor = build().predictor(arguments.bundle, launch(arguments.device or "auto").device)
    deviation = bundles.check_golden(content, predictor.answer)
    say(f"{content.card.identity()}: hashes and numbers are sound, {len(content.tensors)} tensors.")
    say(f"Golden pair: relative deviation {deviation:.2g} (fine up to {bundles.GOLDEN_FINE:g}).")
    if deviation > bundles.GOLDEN_FINE:
        say("warning: this machine computes visibly different values; compare results before you rely on them.")
    return 0


def import_weights(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Make a bundle of a foreign checkpoint."""
    out: Path = arguments.out
    if out.exists() and not arguments.overwrite:
        raise UsageError(f"{out} exists; use --overwrite to replace it, or another --out.")
    config = configs.load(config_class, None, arguments.words)
    for line in build().import_weights(arguments.file, config, out, trusted=arguments.i_trust_this_file):
        say(line)
    say(f"Bundle: {out}. Check it: python -m pipelines.{config_class.task} verify {out}")
    return 0
