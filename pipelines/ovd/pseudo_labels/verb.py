"""The verb ``pseudo-label``: candidates of novel classes in all images of a list."""

import argparse
from collections.abc import Callable

from pipelines.ovd.config import OvdConfig
from pipelines.ovd.pseudo_labels.making import make_labels
from vision_core.config import loading as configs
from vision_core.console import Progress, say
from vision_core.errors import one_line
from vision_core.training.runtime import launch


def run(arguments: argparse.Namespace, config_class: type[OvdConfig], build: Callable[[], object]) -> int:
    """Score what is not scored yet, select, write, and tell what was made."""
    config = configs.load(config_class, arguments.config, arguments.words)
    bar: Progress | None = None

    def tell(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = Progress(total, "pseudo-label", "image")
        bar.advance()

    for line in make_labels(config, arguments.out, launch(arguments.device or "auto").device, tell):
        say(one_line(line))
    if bar:
        bar.close()
    return 0
