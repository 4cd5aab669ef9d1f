"""One training run, from its configuration to its bundle and scores."""

import json
import shutil
import time
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vision_core.bundles.bundle import add_metrics
from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import logged, note, say
from vision_core.errors import (
    CheckpointError,
    EnvironmentFault,
    Interrupted,
    NotFiniteError,
    TrainingError,
    UserError,
    one_line,
)
from vision_core.evaluation.rows import Row, table, write_rows
from vision_core.files import write_atomic
from vision_core.pipeline import Pipeline
from vision_core.runs.folder import RunFolder, started
from vision_core.runs.kept_teachers import kept_steps, size_of
from vision_core.signals import stop_signals
from vision_core.training import distributed
from vision_core.training.checkpoint import Counters
from vision_core.training.learner import Learner, Prepared, refuse_still_teacher
from vision_core.training.loaders import Steps
from vision_core.training.loop import Evaluate, fit, refuse_other_start
from vision_core.training.runtime import Runtime, machine


def train_one(pipeline: Pipeline[Any], config: Config, folder: RunFolder, runtime: Runtime) -> list[Row]:
    """Train one run, write its bundle and evaluate it; a finished run is only evaluated.

    Returns:
        Rows of the source and the result on ``data.eval_split``; empty without one, and in all but the first process.
    """
    prepared = pipeline.prepare(config)
    _check_disk(folder.path, prepared, config)
    with folder.locked(), logged(folder.path / "log.txt") if runtime.is_first else nullcontext():
        changed = refuse_other_start(prepared, config, folder)
        steps = Steps(len(prepared.items), config.train, world_size=runtime.world_size)
        refuse_still_teacher(prepared.learner.teacher_moves, steps)
        begun = time.monotonic()
        if changed:
            _accept(folder, config, changed)
        folder.describe(
            **started(),
            machine=machine(),
            settings=config.model_dump(mode="json"),
            status="running",
            error=None,
            exit_code=None,
        )
        introduce(folder.path.name, config, prepared, runtime.world_size)
        try:
            with distributed.fail_together():
                selection = _Selection(pipeline, config, folder, prepared)
                counters = fit(prepared, config, runtime, folder, selection.evaluate())
                rows, told = [], []
                if runtime.is_first:
                    selection.deliver()
                    told = list(pipeline.conclude_run(config, folder.path, prepared.start))
                    rows = _evaluate(pipeline, config, folder, prepared.start)
                distributed.wait()
        except BaseException as error:
            with stop_signals():  # torchrun ends all processes when one dies; the error is still written
                _record_failure(folder, error)
            raise
        remarks = [*prepared.learner.notes, *_account(counters, prepared.learner), *told]
        for remark in remarks:
            say(remark)
        notes = [*prepared.notes, *remarks]
        seconds = round(time.monotonic() - begun, 1)
        folder.describe(status="done", seconds=seconds, notes=notes, **_record(counters, prepared.learner))
    return rows


def _record(counters: Counters, learner: Learner) -> dict[str, Any]:
    """List the counts of a run for its record; those of a teacher only where there is one."""
    counts = asdict(counters)
    counts["steps_after_last_move"] = counters.step - counters.teacher_moved_at
    of_teacher = () if learner.teacher_moves else ("teacher_moves", "teacher_moved_at", "steps_after_last_move")
    return {name: value for name, value in counts.items() if name not in of_teacher}


def _accept(folder: RunFolder, config: Config, changed: Mapping[str, list[Any]]) -> None:
    """Record accepted changes of settings, which are those of the run from now on."""
    for name, (then, now) in changed.items():
        say(f"  changed: {name} was {then!r}, is {now!r} from here on")
    known = folder.facts().get("changes")
    earlier = known if isinstance(known, list) else []
    folder.describe(changes=[*earlier, {"time": started()["started"], "settings": changed}])
    # A stage that starts from an earlier run of the command finds its weights by the name of that run.
    kept = configs.replace(config, {"source.weights": None}) if config.source.run else config
    if folder.is_written:
        write_atomic(folder.path / "config.yaml", configs.dump(kept))


def _account(counters: Counters, learner: Learner) -> list[str]:
    """Tell what a run did beside its plain steps, for the terminal and the record."""
    told = []
    if learner.teacher_moves and not counters.teacher_moves:
        told.append("warning: The teacher never moved: it holds the weights that the run started from.")
    elif learner.teacher_moves:
        told.append(
            f"The teacher moved {_count(counters.teacher_moves, 'time')}; "
            f"{_count(counters.step - counters.teacher_moved_at, 'step')} of {counters.step} came after its last move."
        )
    if counters.bad_losses:
        told.append(f"{_count(counters.bad_losses, 'step')} had a loss that is not finite and moved nothing.")
    if counters.skipped_updates:
        told.append(f"{_count(counters.skipped_updates, 'update')} had gradients beyond fp16 and moved nothing.")
    return told


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def introduce(name: str, config: Config, prepared: Prepared, world_size: int = 1) -> None:
    """Print method, items, steps and processes of a run.

    Raises:
        ConfigError: The teacher would never move.
        DataError: The items make no step.
    """
    train = config.train
    steps = Steps(len(prepared.items), train, world_size=world_size)
    refuse_still_teacher(prepared.learner.teacher_moves, steps)
    per_step = train.batch_size * world_size
    trained = sum(p.numel() for p in prepared.learner.parameters() if p.requires_grad)
    say(
        f"\n{name or config.task}: {config.method}, {len(prepared.items)} items, {steps.total} steps of "
        f"{train.batch_size}, {trained / 1e6:.1f} M trained parameters, seed {train.seed}"
    )
    if world_size > 1 or train.accumulate > 1:
        say(
            f"  {world_size} processes of {train.batch_size}, gradients of {train.accumulate} steps: an update is of "
            f"{per_step * train.accumulate} items. optim.lr is taken as it stands, {config.optim.lr:g}: scale it where "
            "the method was published with another effective batch."
        )
        per_epoch = min(len(prepared.items), steps.per_epoch * per_step)  # without what train.drop_last leaves out
        moves = {"step": per_step * train.accumulate, "epoch": per_epoch, None: 0}
        if after := moves[prepared.learner.teacher_moves]:
            say(f"  The teacher moves after every {after} items.")
    if kept := kept_steps(steps.total, train.keep_teachers):
        space = _kept_bytes(prepared, config) / 2**20
        say(f"  Of the run {_count(len(kept), 'state')} will be kept in 'teachers', {space:.0f} MiB in all.")
    for remark in prepared.notes:
        say(f"  {one_line(remark)}")


class _Selection:
    """Selection of the weights of the bundle: the last, or the best epoch on validation."""

    def __init__(self, pipeline: Pipeline[Any], config: Config, folder: RunFolder, prepared: Prepared) -> None:
        self.pipeline, self.config, self.folder = pipeline, config, folder
        self.learner, self.scored = prepared.learner, prepared.score
        self.epoch, self.best = folder.path / "epoch", folder.path / "best"
        self.score = folder.path / "best.json"

    def evaluate(self) -> Evaluate | None:
        """Choose the function that ``fit`` calls between epochs."""
        if not self.config.train.eval_every:
            return None
        if self.scored:
            return self._evaluate_learner
        return self._evaluate_bundle if self.config.data.eval_split else None

    def deliver(self) -> None:
        """Write the bundle of the run.

        Raises:
            CheckpointError: The best epoch is gone.
            TrainingError: The last weights have diverged.
        """
        if self.score.exists() and not self.best.exists():
            raise CheckpointError(f"'{self.best}', the best epoch, is gone. Train again with --overwrite.")
        if self.learner.is_selected and self.best.exists():
            shutil.rmtree(self.folder.model, ignore_errors=True)
            shutil.copytree(self.best, self.folder.model)
            return
        try:
            self.pipeline.deliver(self.config, self.learner, self.folder.model)
        except NotFiniteError as error:
            raise TrainingError(
                f"The output is not finite after the last step ({error.where}): the weights have diverged. "
                "Train anew with a lower optim.lr, or set optim.clip_norm."
            ) from error

    def _evaluate_learner(self, epoch: int) -> Mapping[str, float]:
        assert self.scored is not None
        values = self.scored()
        if self._is_better(values):
            self.pipeline.deliver(self.config, self.learner, self.epoch)
            self._keep(epoch, values)
        return values

    def _evaluate_bundle(self, epoch: int) -> Mapping[str, float]:
        self.pipeline.deliver(self.config, self.learner, self.epoch)
        row = self.pipeline.evaluate(self.config, {"epoch": self.epoch}, None)[0]
        values = {name: value for name, value in row.metrics.items() if value is not None}
        if self._is_better(values):
            self._keep(epoch, values)
        shutil.rmtree(self.epoch, ignore_errors=True)
        return values

    def _is_better(self, values: Mapping[str, float]) -> bool:
        if not (self.learner.is_selected and values):
            return False
        known = json.loads(self.score.read_text(encoding="utf-8")) if self.score.exists() else None
        # A resumed run may see epochs again; only a strictly better one replaces the best.
        return known is None or next(iter(values.values())) > known["value"]

    def _keep(self, epoch: int, values: Mapping[str, float]) -> None:
        shutil.rmtree(self.best, ignore_errors=True)
        self.epoch.rename(self.best)
        write_atomic(self.score, json.dumps({"epoch": epoch, "value": next(iter(values.values()))}))


def _check_disk(path: Path, prepared: Prepared, config: Config) -> None:
    learner = prepared.learner
    held = sum(tensor.numel() * tensor.element_size() for tensor in learner.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in learner.parameters() if p.requires_grad)
    moments = 1 if config.optim.name == "sgd" else 2
    needed = 3 * (held + moments * trained)  # two checkpoints and the one being written; the bundle is smaller
    needed += _kept_bytes(prepared, config)
    free = shutil.disk_usage(path).free
    if free < needed:
        raise EnvironmentFault(
            f"{path}: checkpoints need about {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free. "
            "Free some space, or choose another --out."
        )


def _kept_bytes(prepared: Prepared, config: Config) -> int:
    """Compute the disk space of the states that the run keeps beside its checkpoints."""
    if not config.train.keep_teachers:
        return 0
    steps = Steps(len(prepared.items), config.train, world_size=distributed.world_size())
    return size_of(prepared.learner.product(), steps.total, config.train.keep_teachers)


def _evaluate(pipeline: Pipeline[Any], config: Config, folder: RunFolder, start: Path | None) -> list[Row]:
    if not config.data.eval_split:
        return []
    bundles = {"source": start, "adapted": folder.model} if start else {"trained": folder.model}
    rows = pipeline.evaluate(config, bundles, folder.pictures)
    write_rows(folder.path / "evaluation.json", rows)
    result = rows[-1]
    scores: dict[str, Any] = {**result.counts, **result.metrics}
    if len(rows) > 1 and rows[0].split == result.split:
        scores["source"] = dict(rows[0].metrics)
    add_metrics(folder.model, {result.split: scores})
    say(table(rows))
    return rows


def _record_failure(folder: RunFolder, error: BaseException) -> None:
    stopped = isinstance(error, Interrupted | KeyboardInterrupt)
    told = error.lines() if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    note(told if stopped or isinstance(error, UserError) else traceback.format_exc())
    exit_code = error.exit_code if isinstance(error, UserError) else 130 if stopped else 1
    folder.describe(status="interrupted" if stopped else "failed", error=told, exit_code=exit_code)
