"""The verb ``score-lvis``: predictions of any tool, scored as LVIS does."""

import argparse
from collections.abc import Callable

from pipelines.ovd.config import OvdConfig
from pipelines.ovd.data.reading import read_lvis
from pipelines.ovd.evaluation.result_file import read_result_file
from pipelines.ovd.evaluation.scores import score_result_file
from vision_core.config import loading as configs
from vision_core.console import say
from vision_core.errors import UsageError, one_line
from vision_core.evaluation.rows import table, write_rows


def run(arguments: argparse.Namespace, config_class: type[OvdConfig], build: Callable[[], object]) -> int:
    """Score a result file on ``data.eval_split``, by boxes and, where file and index have them, by masks.

    Raises:
        DataError: The index is none of LVIS, or the file is not for it.
        UsageError: ``--out`` exists.
    """
    if arguments.out and arguments.out.exists():
        raise UsageError(f"--out '{arguments.out}' exists and is not replaced. Give another file.")
    config = configs.load(config_class, arguments.config, arguments.words)
    index, notes = read_lvis(config.data)
    found = read_result_file(arguments.predictions, index)
    row = score_result_file(arguments.predictions.name, config.data.eval_split or "", index, found, notes)
    say(table([row]))
    for note in row.notes:
        say(one_line(note))
    if arguments.out:
        write_rows(arguments.out, [row])
        say(one_line(f"Written to {arguments.out}."))
    return 0
