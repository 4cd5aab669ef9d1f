"""The verb ``train``: all runs of a command, each in its own folder, and one report."""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vision_core.bundles.bundle import read_card
from vision_core.commands.several_gpus import free_gpus, share_out, started_from, train_at_once
from vision_core.commands.train_one import introduce, train_one
from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import command_line, say
from vision_core.errors import Interrupted, UsageError, UserError
from vision_core.evaluation.rows import Row
from vision_core.files import write_atomic
from vision_core.pipeline import Build, Pipeline
from vision_core.runs.folder import RunFolder
from vision_core.runs.planned import Runs, describe_runs, output_folder, refuse_data_without_root
from vision_core.runs.repeats import SPREAD, find_repeats, headlines, refuse_foreign_spread, write_repeats
from vision_core.runs.report import refuse_foreign_report, write_report
from vision_core.runs.summary import read_summary
from vision_core.training import distributed
from vision_core.training.runtime import Runtime, launch

_DEMO_DATA_MARK = ".demo-data"


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Train every run that the arguments describe, and write one report."""
    runs = describe_runs(arguments, config_class)
    runtimes = {
        name: launch(config.train.device, config.train.precision, deterministic=config.train.deterministic)
        for name, config in runs.items()
    }
    with distributed.fail_together():
        code = _run(arguments, runs, runtimes, build())
    distributed.leave()
    return code


def _run(arguments: argparse.Namespace, runs: Runs, runtimes: Mapping[str, Runtime], pipeline: Pipeline[Any]) -> int:
    task = next(iter(runs.values())).task
    is_first = distributed.rank() == 0
    refuse_data_without_root(runs, arguments.words)
    out = distributed.broadcast_from_first(output_folder(arguments, task))
    if arguments.dry_run:
        return _rehearse(pipeline, runs)
    folders = _folders(arguments, runs, out)
    if is_first:
        _take(out, folders, resume=arguments.resume, overwrite=arguments.overwrite)
    with distributed.first_process_first():
        runs = _with_demo_data(pipeline, runs, out)
    for name, folder in folders.items():
        if is_first and not arguments.resume:
            write_atomic(folder.path / "config.yaml", configs.dump(runs[name]))
    arguments.resume_command = _resume_command(task, out)  # from here on every run has its config.yaml
    try:
        if len(runs) > 1:
            pipeline.check_runs(runs)
        rows = _train_all(pipeline, runs, folders, runtimes)
    except UserError as error:
        if is_first and not isinstance(error, Interrupted):  # which can be resumed, and needs its settings
            _withdraw(list(folders.values()))
        raise
    if is_first:
        _compare(pipeline, out, rows, folders)
        _conclude(pipeline, type(next(iter(runs.values()))), list(folders.values()))
        say(f"\nReport:    {write_report(out, pipeline.curve_names)}")
    return 0


def _folders(arguments: argparse.Namespace, runs: Runs, out: Path) -> dict[str, RunFolder]:
    """Name the folder of each run."""
    accepts = arguments.accept_changes
    if accepts and not arguments.resume:
        raise UsageError("--accept-changes is for --resume: a new run has no earlier settings. Leave it out.")
    if "" not in runs and RunFolder(out).is_used():
        raise UsageError(f"--out {out} is itself a run; several need a folder of their own. Give another --out.")
    is_first = distributed.rank() == 0
    return {name: RunFolder(out / name, is_written=is_first, accepts_changes=accepts) for name in runs}


def _train_all(
    pipeline: Pipeline[Any], runs: Runs, folders: Mapping[str, RunFolder], runtimes: Mapping[str, Runtime]
) -> dict[str, list[Row]]:
    """Train all runs: one by one, or where there are several GPUs one on each at once."""
    shares = share_out(runs, free_gpus(runs) if len(runs) > 1 else [])
    if len(shares) > 1:
        found = train_at_once(pipeline, shares, folders)
        return {name: found[name] for name in folders}
    return {
        name: train_one(pipeline, started_from(runs[name], folders), folder, runtimes[name])
        for name, folder in folders.items()
    }


def _resume_command(task: str, out: Path) -> str:
    count = distributed.world_size()
    start = ["torchrun", "--nproc-per-node", str(count)] if count > 1 else ["python"]
    return command_line([*start, "-m", f"pipelines.{task}", "train", "--out", str(out), "--resume"])


def _take(out: Path, folders: Mapping[str, RunFolder], *, resume: bool, overwrite: bool) -> None:
    """Prepare all folders, after a check of all."""
    for folder in folders.values():
        folder.check(resume=resume, overwrite=overwrite)
    refuse_foreign_report(out)  # at the end of the runs it would be too late
    refuse_foreign_spread(out)
    for folder in folders.values():
        folder.open(resume=resume, overwrite=overwrite)


def _withdraw(folders: Sequence[RunFolder]) -> None:
    """Remove run folders without a begun run, for the corrected command."""
    if not any(folder.has_begun() for folder in folders):
        for folder in folders:
            folder.withdraw()


def _with_demo_data(pipeline: Pipeline[Any], runs: Runs, out: Path) -> Runs:
    """Set ``data.root`` of runs without one to the demo's data, made once."""
    if all(config.has_data() for config in runs.values()):
        return runs
    folder = out / "data"
    if not (folder / _DEMO_DATA_MARK).exists():
        _make_demo_data(pipeline, folder)
    return {
        name: config if config.has_data() else configs.replace(config, {"data.root": folder})
        for name, config in runs.items()
    }


def _make_demo_data(pipeline: Pipeline[Any], folder: Path) -> None:
    if folder.exists():
        raise UsageError(f"{folder} exists and does not hold the demo's data. Give another --out, or data.root.")
    beside = folder.with_name(".data.partial")
    shutil.rmtree(beside, ignore_errors=True)
    say(pipeline.demo_data(beside))
    write_atomic(beside / _DEMO_DATA_MARK, "")
    beside.rename(folder)


def _rehearse(pipeline: Pipeline[Any], runs: Runs) -> int:
    for name, config in runs.items():
        if config.has_data():
            introduce(name, config, pipeline.rehearse(config), distributed.world_size())
        else:
            say(f"{name or config.task}: would make the demo's data first; nothing to read yet.")
    return 0


def _compare(
    pipeline: Pipeline[Any], out: Path, rows: Mapping[str, Sequence[Row]], folders: Mapping[str, RunFolder]
) -> None:
    if len(rows) < 2:
        return
    repeats = find_repeats(rows)
    say("\n" + "\n".join(each.sentence() for each in headlines(repeats)))
    write_repeats(out / SPREAD, repeats)
    for line in pipeline.compare({name: folder.path for name, folder in folders.items()}):
        say(line)


def _conclude(pipeline: Pipeline[Any], config_class: type[Config], folders: Sequence[RunFolder]) -> None:
    """Name every model that was made, and what to do with the last of them."""
    quoted, task, last = [command_line([str(each.model)]) for each in folders], config_class.task, folders[-1]
    say("")
    for each in quoted:
        say(f"Model:     {each}")
    summary = read_summary(last.path)
    for why, command in summary.next_steps if summary else ():
        say(f"{why}\n           {command}")
    if not (summary and summary.next_steps):
        say(f"Use it:    python -m pipelines.{task} {pipeline.next_command(read_card(last.model).method, quoted[-1])}")
    say(f"Own data:  python -m pipelines.{task} train {config_class.own_data}")
    for name, words in zip(("BUNDLE:  ", "or:      "), config_class.own_source, strict=False):
        say(f"{name}  python -m pipelines.{task} {words}")
