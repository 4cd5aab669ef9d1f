"""The verb ``train``: one run, or several that a file or ``--seeds`` describe, each in a folder of its own."""

import argparse
import shlex
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vision_core import config as configs
from vision_core.config import Config
from vision_core.errors import EnvironmentFault, UsageError
from vision_core.files import write_atomic
from vision_core.pipeline import Pipeline, Row
from vision_core.report import write_report
from vision_core.runfolder import RunFolder
from vision_core.runlog import say
from vision_core.running import introduce, train_one
from vision_core.runtime import launch

Build = Callable[[], Pipeline[Any]]
Runs = dict[str, Config]
_CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def train(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Train every run that the arguments describe, then report on them together."""
    task = config_class.task
    out: Path = arguments.out or Path("runs") / f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"
    runs = _describe_runs(arguments, config_class, out)
    if arguments.show_config:
        say("\n".join((f"# run: {name}\n" if name else "") + configs.describe(config) for name, config in runs.items()))
        return 0
    arguments.resume_command = shlex.join(["python", "-m", f"pipelines.{task}", "train", "--out", str(out), "--resume"])
    pipeline = build()
    settings = next(iter(runs.values())).train
    runtime = launch(arguments.device or settings.device, settings.precision)
    if arguments.dry_run:
        return _rehearse(pipeline, runs)
    folders = {name: RunFolder(out / name if name else out) for name in runs}
    for folder in folders.values():
        folder.open(resume=arguments.resume, overwrite=arguments.overwrite)
    runs = _with_demo_data(pipeline, runs, out)
    for name, folder in folders.items():
        write_atomic(folder.path / "config.yaml", configs.dump(runs[name]))
    rows = {name: train_one(pipeline, runs[name], folder, runtime) for name, folder in folders.items()}
    _conclude(task, out, rows, folders)
    return 0


def _describe_runs(arguments: argparse.Namespace, config_class: type[Config], out: Path) -> Runs:
    if arguments.resume and not arguments.config:
        return _found_runs(arguments, config_class, out)
    has_data = any(word.startswith("data.root=") for word in arguments.words)
    path = arguments.config or (None if has_data else _demo_config(config_class.task))
    runs = configs.load_runs(config_class, path, arguments.words)
    if not arguments.seeds:
        return runs
    return {
        f"{name}-seed-{seed}".lstrip("-"): configs.replace(config, {"train.seed": seed})
        for name, config in runs.items()
        for seed in arguments.seeds
    }


def _found_runs(arguments: argparse.Namespace, config_class: type[Config], out: Path) -> Runs:
    if not arguments.out:
        raise UsageError("--resume needs --out: the folder of the run to go on with.")
    found = [out / "config.yaml"] if (out / "config.yaml").exists() else sorted(out.glob("*/config.yaml"))
    if not found:
        raise UsageError(f"There is no run in '{out}' to resume (no config.yaml). Start it without --resume.")
    return {
        "" if path.parent == out else path.parent.name: configs.load(config_class, path, arguments.words)
        for path in found
    }


def _demo_config(task: str) -> Path:
    path = _CONFIGS / task / "demo.yaml"
    if not path.exists():
        raise EnvironmentFault(f"The demo's settings are missing ({path}). Install domainsight from its repository.")
    return path


def _with_demo_data(pipeline: Pipeline[Any], runs: Runs, out: Path) -> Runs:
    """Runs without a data root get the demo's data, made once below their folder."""
    if all(config.data.root for config in runs.values()):
        return runs
    folder = out / "data"
    if not (folder / "COMPLETE").exists():
        shutil.rmtree(folder, ignore_errors=True)
        say(pipeline.demo_data(folder))
        write_atomic(folder / "COMPLETE", "")
    return {
        name: config if config.data.root else configs.replace(config, {"data.root": folder})
        for name, config in runs.items()
    }


def _rehearse(pipeline: Pipeline[Any], runs: Runs) -> int:
    for name, config in runs.items():
        if config.data.root:
            introduce(name, config, pipeline.prepare(config))
        else:
            say(f"{name or config.task}: would make the demo's data first; nothing to read yet.")
    return 0


def _conclude(task: str, out: Path, rows: Mapping[str, Sequence[Row]], folders: Mapping[str, RunFolder]) -> None:
    model = next(iter(folders.values())).model
    if len(rows) > 1:
        say(f"\n{_spread(rows)}")
    say(f"\nReport:    {write_report(out)}")
    say(f"Model:     {model}")
    say(f"Use it:    python -m pipelines.{task} predict --checkpoint {model} --input YOUR_IMAGES --out found")
    say(f"Own data:  python -m pipelines.{task} train data.root=YOUR_IMAGES data.format=images source.weights=BUNDLE")


def _spread(rows: Mapping[str, Sequence[Row]]) -> str:
    """The first metric of every run, in percent; mean and spread where runs differ in their seed alone."""
    groups: dict[tuple[str, str], list[float]] = {}
    for name, found in rows.items():
        for row in found:
            metric, value = next(iter(row.metrics.items()))
            if value is not None:
                group = f"{name.partition('seed-')[0].rstrip('-') or row.split} {row.model}"
                groups.setdefault((group, metric), []).append(100 * value)
    return "\n".join(f"{group:24} {metric} {_mean(values)}" for (group, metric), values in groups.items())


def _mean(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):5.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f} over {len(values)} seeds" if len(values) > 1 else mean
