"""The verb ``train``: one run, or several that a file, the demo or ``--seeds`` describe, each in a folder of its own."""

import argparse
import shlex
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


from vision_core import config as configs
from vision_core.config import Config
from vision_core.errors import EnvironmentFault, Interrupted, UsageError, UserError
from vision_core.files import write_atomic
from vision_core.pipeline import Pipeline, Prepared, Row
from vision_core.runfolder import RunFolder, started
from vision_core.runlog import say
from vision_core.runtime import Runtime, launch, machine
from vision_core.training import Learner, fit

Build = Callable[[], Pipeline[Any]]
_CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def train(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Train every run that the arguments describe, then report on them together."""
    out: Path = arguments.out or Path("runs") / f"{config_class.task}-{time.strftime('%Y%m%d-%H%M%S')}"
    runs = _describe_runs(arguments, config_class, out)
    if arguments.show_config:
        for name, config in runs.items():
            say((f"# run: {name}\n" if name else "") + configs.describe(config))
        return 0
    arguments.resume_command = shlex.join(
        ["python", "-m", f"pipelines.{config_class.task}", "train", "--out", str(out), "--resume"]
    )
    pipeline = build()
    first = next(iter(runs.values())).train
    runtime = launch(arguments.device or first.device, first.precision)
    if arguments.dry_run:
        return _rehearse(pipeline, runs, runtime)
    folders = {name: RunFolder(out / name if name else out) for name in runs}
    for folder in folders.values():
        folder.open(resume=arguments.resume, overwrite=arguments.overwrite)
    runs = _with_demo_data(pipeline, runs, out)
    for name, folder in folders.items():
        write_atomic(folder.path / "config.yaml", configs.dump(runs[name]))
    rows = {name: _one_run(pipeline, runs[name], folder, runtime) for name, folder in folders.items()}
    _conclude(config_class.task, out, rows, folders)
    return 0


def _describe_runs(arguments: argparse.Namespace, config_class: type[Config], out: Path) -> dict[str, Config]:
    if arguments.resume and not arguments.config:
        return _found_runs(arguments, config_class, out)
    words = list(arguments.words)
    has_data = any(word.startswith("data.root=") for word in words)
    path = arguments.config or (None if has_data else _demo_config(config_class.task))
    runs = configs.load_runs(config_class, path, words)
    if not arguments.seeds:
        return runs
    return {
        f"{name}-seed-{seed}".lstrip("-"): configs.replace(config, {"train.seed": seed})
        for name, config in runs.items()
        for seed in arguments.seeds
    }


def _found_runs(arguments: argparse.Namespace, config_class: type[Config], out: Path) -> dict[str, Config]:
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


def _with_demo_data(pipeline: Pipeline[Any], runs: Mapping[str, Config], out: Path) -> dict[str, Config]:
    lacking = [name for name, config in runs.items() if getattr(config, "data", None) and config.data.root is None]  # type: ignore[attr-defined]
    if not lacking:
        return dict(runs)
    folder = out / "data"
    done = folder / "COMPLETE"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        say(pipeline.demo_data(folder))
        write_atomic(done, "")
    given = configs.replace
    return {name: given(config, {"data.root": folder}) if name in lacking else config for name, config in runs.items()}


def _rehearse(pipeline: Pipeline[Any], runs: Mapping[str, Config], runtime: Runtime) -> int:
    for name, config in runs.items():
        if getattr(config, "data", None) and config.data.root is None:  # type: ignore[attr-defined]
            say(f"{name or 'run'}: the demo's data would be made first.")
            continue
        prepared = pipeline.prepare(config, runtime)
        _introduce(name, config, prepared, runtime)
    return 0


def _one_run(pipeline: Pipeline[Any], config: Config, folder: RunFolder, runtime: Runtime) -> list[Row]:
    from vision_core.verbs import table, write_rows

    with folder.locked():
        begun = time.monotonic()
        folder.describe(**started(), machine=machine(), settings=config.model_dump(mode="json"), status="running")
        try:
            config = _with_imported_source(pipeline, config, folder)
            prepared = pipeline.prepare(config, runtime)
            _introduce(folder.path.name, config, prepared, runtime)
            _check_disk(folder.path, prepared.learner, config)
            counters = fit(prepared.learner, prepared.items, config, runtime, folder)
            card = pipeline.deliver(config, prepared.learner, folder.model)
            rows = _evaluate(pipeline, config, folder, prepared)
        except BaseException as error:
            _record_failure(folder, error)
            raise
        if rows:
            write_rows(folder.path / "evaluation.json", rows)
            say(table(rows))
        folder.describe(
            status="done",
            seconds=round(time.monotonic() - begun, 1),
            notes=[*prepared.notes, *prepared.learner.notes],
            updates=counters.updates,
            empty_steps=counters.empty_steps,
            skipped_updates=counters.skipped_updates,
            model=card.identity(),
        )
    return rows


def _with_imported_source(pipeline: Pipeline[Any], config: Config, folder: RunFolder) -> Config:
    """A foreign checkpoint becomes a bundle in the run folder, so that it can be evaluated beside the result."""
    path = config.source.weights
    if path is None or path.is_dir() or path.suffix == ".zip" or not hasattr(pipeline, "import_weights"):
        return config
    target = folder.path / "source"
    if not target.exists():
        for line in pipeline.import_weights(path, config, target, trusted=False):
            say(line)
    return configs.replace(config, {"source.weights": target, "source.config": None})


def _introduce(name: str, config: Config, prepared: Prepared, runtime: Runtime) -> None:
    train = config.train
    steps = -(-len(prepared.items) // train.batch_size) * train.epochs
    trained = sum(p.numel() for p in prepared.learner.parameters() if p.requires_grad)
    for note in prepared.notes:
        say(f"  {note}")
    say(
        f"{name or config.task}: {len(prepared.items)} items, {train.epochs} epochs of batches of {train.batch_size}, "  # type: ignore[attr-defined]
        f"{steps} steps; {trained / 1e6:.1f} M parameters train on {runtime.device}."
    )


def _check_disk(path: Path, learner: Learner, config: Config) -> None:
    held = sum(tensor.numel() * tensor.element_size() for tensor in learner.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in learner.parameters() if p.requires_grad)
    moments = 2 if config.optim.name == "adamw" else 1
    needed = 3 * (held + moments * trained)  # two checkpoints and the one being written; the bundle is smaller
    free = shutil.disk_usage(path).free
    if free < needed:
        raise EnvironmentFault(
            f"{path}: checkpoints need about {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free. "
            "Free some space, or choose another --out."
        )


def _evaluate(pipeline: Pipeline[Any], config: Config, folder: RunFolder, prepared: Prepared) -> list[Row]:
    if not getattr(getattr(config, "data", None), "eval_split", None):
        return []
    bundles = {"source": prepared.start} if prepared.start else {}
    name = "adapted" if prepared.start else "trained"
    return pipeline.evaluate(config, {**bundles, name: folder.model}, folder.pictures)


def _record_failure(folder: RunFolder, error: BaseException) -> None:
    stopped = isinstance(error, Interrupted | KeyboardInterrupt)
    known = error.lines() if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    exit_code = error.exit_code if isinstance(error, UserError) else 130 if stopped else 1
    folder.describe(status="interrupted" if stopped else "failed", error=known, exit_code=exit_code)


def _conclude(task: str, out: Path, rows: Mapping[str, list[Row]], folders: Mapping[str, RunFolder]) -> None:
    from vision_core.report import write_report

    model = next(iter(folders.values())).model
    if len(rows) > 1:
        say(_spread(rows))
    say(f"\nReport:  {write_report(out)}")
    say(f"Model:   {model}")
    say(f"Use it:  python -m pipelines.{task} predict --checkpoint {model} --input YOUR_IMAGES --out found")
    say(
        f"Own data: python -m pipelines.{task} train data.root=YOUR_FOLDER data.format=images source.weights=YOUR_BUNDLE"
    )


def _spread(rows: Mapping[str, list[Row]]) -> str:
    """Mean and spread over seeds of the first metric, where runs differ in their seed alone."""
    groups: dict[tuple[str, str], list[float]] = {}
    for name, found in rows.items():
        for row in found:
            value = next(iter(row.metrics.values()))
            if value is not None:
                groups.setdefault((name.partition("seed-")[0].rstrip("-") or row.split, row.model), []).append(
                    100 * value
                )
    lines = [
        f"{run:12} {model:8} {statistics.fmean(values):5.1f}"
        + (f" +- {statistics.stdev(values):.1f} over {len(values)} seeds" if len(values) > 1 else "")
        for (run, model), values in groups.items()
    ]
    return "\n".join(lines)
