"""The verb ``validate``: a check of every item of a data set."""

import argparse

from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import Progress, say
from vision_core.errors import EXIT_PARTIAL, AllInputsError, one_line
from vision_core.pipeline import Build


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Read every item and list the faults; 0: none, 4: some, 3: all items."""
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
        say("\n".join(map(one_line, each.lines())))
    return max(_exit_code(len(each.faults), each.num_read) for each in found)


def _exit_code(faults: int, items: int) -> int:
    if not faults:
        return 0
    return EXIT_PARTIAL if faults < items else AllInputsError.exit_code
