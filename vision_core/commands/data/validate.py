"""The verb ``validate``: a check of every item of a data set."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import Progress, say
from vision_core.csv_tables import to_csv
from vision_core.errors import EXIT_PARTIAL, AllInputsError, Checked, DataError, UsageError, one_line
from vision_core.files import to_json, write_atomic
from vision_core.pipeline import Build, Checking

_HEADER = ("list", "severity", "finding")
_VERSION = 1
_MOST_SHOWN = 50


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Read every item and list all findings; 0: no fault, 4: some items have faults, 3: all have.

    Raises:
        DataError: Faults of labels or index refuse a list; its items were read all the same.
        UsageError: ``--out`` is no file of findings that may be replaced.
    """
    if arguments.out:
        _refuse_foreign(arguments.out)
    config = configs.load(config_class, arguments.config, arguments.words)
    bar: Progress | None = None

    def tell(done: int, total: int) -> None:
        nonlocal bar
        if bar is None or done == 1:
            bar = Progress(total, "validate", "item")
        bar.advance()

    pipeline = build()
    if (arguments.workers or arguments.cache) and not pipeline.can_check:
        raise UsageError(f"'{config_class.task}' reads one file after the other. Leave --workers and --cache away.")
    pipeline.checking = Checking(workers=arguments.workers, cache=arguments.cache)
    checked = pipeline.validate(config, arguments.sample, tell)
    if bar:
        bar.close()
    for each in checked:
        say("\n".join(map(one_line, each.lines())))
    if arguments.out:
        is_json = arguments.out.suffix.lower() == ".json"
        write_atomic(arguments.out, _report(checked) if is_json else to_csv(_HEADER, _rows(checked)))
        say(f"Findings:  {one_line(str(arguments.out))}")
    if problems := [problem for each in checked for problem in each.problems]:
        raise DataError(_shortened(problems, is_listed=bool(arguments.out)))
    return max(_exit_code(each) for each in checked)


def _rows(checked: Sequence[Checked]) -> list[Sequence[str]]:
    found: list[Sequence[str]] = [
        (each.name, finding.severity, finding.text) for each in checked for finding in each.findings
    ]
    return [*found, *((each.name, "refuse", fault) for each in checked for fault in each.faults)]


def _report(checked: Sequence[Checked]) -> str:
    """Write all that was found as JSON."""
    return to_json({"validate": _VERSION, "lists": [{**asdict(each), "problems": each.problems} for each in checked]})


def _shortened(problems: Sequence[str], *, is_listed: bool) -> list[str]:
    if len(problems) <= _MOST_SHOWN:
        return list(problems)
    hint = "The file of findings lists all." if is_listed else "Give --out FILE.csv to list all."
    return [*problems[:_MOST_SHOWN], f"These are '{_MOST_SHOWN}' of '{len(problems)}' problems. {hint}"]


def _exit_code(checked: Checked) -> int:
    if not checked.faults:
        return 0
    return EXIT_PARTIAL if len(checked.faults) < checked.num_read else AllInputsError.exit_code


def _refuse_foreign(path: Path) -> None:
    """Refuse to replace what is no earlier list of findings."""
    if not path.parent.is_dir():
        raise UsageError(f"--out '{path}': there is no folder '{path.parent}'. Make it, or give another --out.")
    starts = ",".join(_HEADER).encode(), b'{\n "validate":'
    if path.exists() and not (path.is_file() and path.read_bytes().startswith(starts)):
        raise UsageError(f"--out '{path}' is no list of findings, and stays. Give another --out.")
