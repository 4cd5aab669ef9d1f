"""Batch engine: runs one predictor over many inputs and records each in a ledger, so that none is done twice.

The output folder holds ``outputs/``, ``ledger/``, ``results.csv``, ``failures.csv``, ``summary.html``, ``README.txt``,
``job.json``, which identifies the batch, and for tasks that inspect inputs first ``plan.json``. After a kill at any
moment, the same command ends with the same files.

An input in which the process ended without a word (a crash of a library, a kill) is tried once more, after all others;
when that ends the process too, the next start fails it. Like every failed input it is tried again by the command after
that, still after all others, so that it never keeps the rest from being done.
"""

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from vision_core.batch.folder import (
    JOB,
    OUTPUTS,
    claim_folder,
    plan_lock,
    refuse_foreign,
    remove_outputs,
    write_batch_readme,
)
from vision_core.batch.inspection import PLAN, Inspected, Plan, inspect_inputs
from vision_core.batch.job import BatchJob, FileProcessor
from vision_core.batch.ledger import ENDED_HERE, Ledger, Output, Record, all_records, output, read_ledgers
from vision_core.batch.plan import Task, plan
from vision_core.batch.tables import GrowingTables, count_categories, write_tables
from vision_core.environment import describe_lost_gpu, is_lost_gpu, is_out_of_memory, release_gpu_memory
from vision_core.errors import (
    EXIT_PARTIAL,
    AllInputsError,
    DataError,
    EnvironmentFault,
    InputError,
    Interrupted,
    UserError,
    one_line,
)
from vision_core.files import atomic_path, stamp, text_of, writing
from vision_core.signals import raise_if_stopped

BACKOFF_SECONDS = (0.5, 1.0, 2.0)

_LOG = logging.getLogger("domainsight")
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EREMOTEIO}
_TOLD_CATEGORIES = 8
_ROUNDS = 2  # the second repeats inputs whose outputs were deleted during the first
_MOST_STARTS = 2  # of an input that ends the process each time
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of a batch at its end, earlier runs of it included."""

    out: Path
    done: int
    failures: Mapping[str, str] = field(default_factory=dict)
    left: int = 0
    notes: Sequence[str] = ()
    categories: Mapping[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when all inputs are done, 3 when none is, else 4."""
        if not self.failures and not self.left:
            return 0
        return EXIT_PARTIAL if self.done else AllInputsError.exit_code

    def lines(self) -> list[str]:
        """Describe the result in sentences."""
        total = self.done + self.left + len(self.failures)
        told = [f"{self.done} of {total} inputs done; results in '{self.out}'."]
        if self.categories:
            most = [f"{count} {name}" for name, count in self.categories.items()][:_TOLD_CATEGORIES]
            told.append("; ".join([*most, "others"] if len(most) < len(self.categories) else most) + ".")
        if self.failures:
            told.append(f"{len(self.failures)} failed, listed in '{self.out / 'failures.csv'}'.")
        if self.left:
            told.append(f"{self.left} not tried, as the first failure stops this batch (--strict, --on-error stop).")
        return [*told, *self.notes]


class Watcher:
    """Observer of a batch; this one ignores every event."""

    def inspecting(self, total: int) -> None:
        """Announce that ``total`` inputs will be inspected."""

    def inspected(self) -> None:
        """Count one inspected input."""

    def planned(self, plan: Plan) -> None:
        """Receive the plan after the last inspection."""

    def starting(self, total: int) -> None:
        """Announce that ``total`` inputs will be processed."""

    def done(self, record: Record, number: int, total: int) -> None:
        """Receive the record of the ``number``-th of ``total`` inputs."""


def run_batch(job: BatchJob[R], watcher: Watcher | None = None) -> Summary:
    """Process all inputs that are not done yet.

    Args:
        job: Inputs, predictor and output folder.
        watcher: Observer of the progress.

    Raises:
        UsageError: The folder holds other files, or another process works on it.
        EnvironmentFault: The disk is full or cannot be written; finished inputs stay valid.
        Interrupted: Ctrl-C; the same command continues.
    """
    refuse_foreign(job)
    with Ledger(job.out / "ledger" / f"{job.shard}.jsonl") as ledger:
        with plan_lock(job.out):
            claim_folder(job, ledger)
        worker = _Worker(job, ledger, watcher or Watcher())
        try:
            worker.run()
        except KeyboardInterrupt as error:
            summary = _conclude(job, worker.failed)
            raise Interrupted(f"{summary.lines()[0]} The same command continues with the rest.") from error
        return _conclude(job, worker.failed)


class _Worker(Generic[R]):
    """Worker: one process with its share of the inputs."""

    def __init__(self, job: BatchJob[R], ledger: Ledger, watcher: Watcher) -> None:
        self.job, self.ledger, self.watcher, self.attempts = job, ledger, watcher, ledger.attempts
        self.plan: Plan = {}
        self.failed: set[Path] = set()
        self.staging = job.out / f".staging-{job.shard}"
        self.unfinished = job.out / f".unfinished-{job.shard}"
        self.predictor: FileProcessor[R] | None = None
        self.tables = GrowingTables(job.out)

    def run(self) -> None:
        """Process the plan, then again the inputs whose outputs were lost."""
        try:
            for _ in range(_ROUNDS):
                tasks = [task for task in plan(self.job) if task.path not in self.failed]
                tasks.sort(key=self._is_suspect)
                if not tasks or not self._do_all(tasks):
                    break
        finally:
            self._expect(())
            self.attempts.only()
            shutil.rmtree(self.staging, ignore_errors=True)
        self._clear_unfinished()  # after a stop all of it stays: the same command continues from it

    def _do_all(self, tasks: Sequence[Task]) -> bool:
        """Process these in turn; False when a failure ends the batch."""
        suspects = [task for task in tasks if self._is_suspect(task)]
        self._inspect(tasks, suspects)
        if any(not self._refused(task) for task in tasks):
            self.predictor = self.predictor or self._load()
        write_batch_readme(self.job)
        self.tables.begin(text_of(task.path) for task in tasks)
        self.watcher.starting(len(tasks))
        for number, task in enumerate(tasks, start=1):
            raise_if_stopped()
            if task.reason:
                _LOG.info("'%s' is done again: %s.", task.path, task.reason)
            begun = [each for each in tasks[number - 1 : number + 1] if each is task or each not in suspects]
            self.attempts.only(*(each.path for each in begun))
            self._expect(begun)
            record = self._do(task)
            self.ledger.append(record)
            self.tables.add(record)
            self.watcher.done(record, number, len(tasks))
            if record.status == "failed":
                self.failed.add(task.path)
                if self.job.strict:
                    return False
        return True

    def _clear_unfinished(self) -> None:
        """Remove unfinished work, unless inputs failed: the next run continues with theirs."""
        if self.failed:
            with suppress(OSError):  # not empty
                self.unfinished.rmdir()
        else:
            shutil.rmtree(self.unfinished, ignore_errors=True)

    def _load(self) -> FileProcessor[R]:
        try:
            predictor = self.job.make_predictor()
        except UserError:
            if not read_ledgers(self.job.out / "ledger"):  # the folder is free for the corrected command
                for name in (JOB, PLAN):
                    (self.job.out / name).unlink(missing_ok=True)
                with suppress(OSError):  # it is not empty
                    (self.job.out / OUTPUTS).rmdir()
            raise
        with writing(self.unfinished):
            self.unfinished.mkdir(exist_ok=True)
        predictor.resume_in(self.unfinished)
        return predictor

    def _expect(self, tasks: Sequence[Task]) -> None:
        if self.predictor is not None:
            self.predictor.expect([task.path for task in tasks if not self._refused(task)])

    def _inspect(self, tasks: Sequence[Task], suspects: Sequence[Task]) -> None:
        """Open what is not planned yet; suspects one by one, so that the next start knows which ended the process."""
        new = [task for task in tasks if not self._refused(task) and text_of(task.path) not in self.plan]
        if (inspect := self.job.inspect) is None or not new:
            return

        def watched(path: Path, *, is_alone: bool) -> Inspected:
            with self.attempts.during(path, is_alone=is_alone):
                return inspect(path)

        self.watcher.inspecting(len(new))
        for some in ([task for task in new if task not in suspects], *([task] for task in new if task in suspects)):
            paths, look = [task.path for task in some], partial(watched, is_alone=len(some) == 1)
            self.plan |= inspect_inputs(paths, look, self.job.out, self.watcher.inspected)
        self.watcher.planned(self.plan)

    def _is_suspect(self, task: Task) -> bool:
        return task.has_ended_process or self.attempts.before(task.path) is not None

    def _refused(self, task: Task) -> str:
        if (self.attempts.before(task.path) or 0) >= _MOST_STARTS:
            return (
                f"'{task.path}': {ENDED_HERE} twice while it was read: a library crashed, or something killed the "
                "process, as for lack of memory. Run the same command to try it again, after all others."
            )
        planned = self.plan.get(text_of(task.path))
        return planned.reason if planned else ""

    def _do(self, task: Task) -> Record:
        started, made_of = time.monotonic(), self.job.fingerprint_of(task.path)
        facts: dict[str, Any] = {"input": text_of(task.path), "name": task.name}
        try:
            facts |= {"status": "done", **_with_retries(lambda: self._attempt(task))}
        except Exception as error:  # an input must not end the batch, whatever error a decoder or a model raises
            if isinstance(error, UserError) and not isinstance(error, DataError):
                raise
            if is_lost_gpu(error):  # all inputs after it would fail as well; this one is tried again
                again = "The same command continues with the rest."
                raise EnvironmentFault(f"'{task.path}': {describe_lost_gpu(error)} {again}") from error
            _LOG.debug("'%s' failed", task.path, exc_info=True)
            facts |= {"status": "failed", "reason": one_line(_reason(error, task.path))}
        seconds = round(time.monotonic() - started, 3)
        return Record(seconds=seconds, version=self.job.version, fingerprint=made_of, **facts)

    def _attempt(self, task: Task) -> dict[str, Any]:
        if reason := self._refused(task):
            raise InputError(reason)
        assert self.predictor is not None
        before = stamp(task.path)
        result = self.predictor(task.path)
        with writing(self.staging):
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir()
        with writing(self.job.out / OUTPUTS):
            written = self.predictor.write(result, task.path, self.staging)
        if stamp(task.path) != before:
            raise InputError(f"'{task.path}' changed while reading. Run again when it is complete.")
        return {"stamp": before, "outputs": self._commit(task, written), "values": dict(self.job.columns(result))}

    def _commit(self, task: Task, written: Sequence[Path]) -> tuple[Output, ...]:
        """Move the written files to their place, each flushed and renamed."""
        finals = []
        for path in written:
            if not path.name.startswith(task.path.stem):
                raise ValueError(f"output '{path.name}': expected a name that starts with '{task.path.stem}'")
            final = self.job.out / OUTPUTS / (task.name + path.name.removeprefix(task.path.stem))
            with atomic_path(final) as partial:
                path.replace(partial)
            finals.append(final)
        return tuple(output(final, self.job.out) for final in finals)


def _with_retries(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call ``action``, and retry after passing errors of a disk or share."""
    for wait in BACKOFF_SECONDS:
        try:
            return action()
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            _LOG.warning("%s; trying again in %g s.", error, wait)
            time.sleep(wait)
    return action()


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, DataError):
        return " ".join(error.problems)
    if is_out_of_memory(error):
        release_gpu_memory()
        if "CUDA" in str(error):
            return "The memory of the GPU is not enough for it. Use --device cpu, a GPU with more, or a smaller input."
        return "It needs more memory than is free. Use a machine with more, or a smaller input."
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        length = len(os.fsencode(path.name))
        return f"'{path}': its name of '{length}' bytes leaves no room for those of its results. Use 200 at most."
    if isinstance(error, OSError):
        return f"It cannot be read: {(error.strerror or str(error)).lower()}."
    return f"Internal error ({type(error).__name__}: {error}). Please report it; --debug shows more."


def _conclude(job: BatchJob[R], failed: set[Path]) -> Summary:
    """Merge the ledgers into the tables, and remove replaced outputs."""
    known = read_ledgers(job.out / "ledger")
    ever = {made.file for record in all_records(job.out / "ledger") for made in record.outputs}
    remove_outputs(job.out, ever - {made.file for record in known.values() for made in record.outputs})
    listed = [text_of(path) for path in dict.fromkeys(job.inputs)]
    records = [known[name] for name in listed if name in known]
    write_batch_readme(job)
    write_tables(job.out, records, len(set(job.inputs)), job.notes, job.titles)
    failures = {record.input: record.reason for record in records if record.status == "failed"}
    done = len(records) - len(failures)
    left = len(set(job.inputs)) - len(records)
    categories = count_categories(records)
    return Summary(out=job.out, done=done, failures=failures, left=left, notes=job.notes, categories=categories)
