"""What a batch is to do, and whose its output folder is."""

import fcntl
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from vision_core.batch.inspection import PLAN, Inspect
from vision_core.batch.ledger import Cell, Ledger, Record, all_records, fault_of, read_ledgers, stamp, writing
from vision_core.errors import InputError, UsageError
from vision_core.files import remove_leftovers, text_of, write_atomic

OUTPUTS, JOB = "outputs", "job.json"

R = TypeVar("R")


class Predictor(Protocol[R]):
    """What a worker needs of a loaded model."""

    def __call__(self, path: Path) -> R:
        """The result for one input."""
        ...

    def write(self, result: R, path: Path, folder: Path) -> list[Path]:
        """Write the files of a result into ``folder``, each named after the stem of ``path``; returns them."""
        ...


@runtime_checkable
class Farsighted(Protocol):
    """What a predictor may have besides: to make ready what comes next while it works."""

    def expect(self, paths: Sequence[Path]) -> None:
        """The input that is about to be done and the next; at the end none."""
        ...


@runtime_checkable
class Resuming(Protocol):
    """What a predictor may have besides: to go on within an input that a stopped process had begun."""

    def resume_in(self, folder: Path) -> None:
        """Told once, before the first input: a folder for what is unfinished; it goes when the batch has ended."""
        ...


def _nothing_else(_path: Path) -> str:
    return ""


def _no_columns(_result: Any) -> Mapping[str, Cell]:  # noqa: ANN401 (any result)
    return {}


@dataclass(frozen=True, kw_only=True)
class BatchJob(Generic[R]):
    """What to do.

    Attributes:
        inputs: Files, in the order of the tables.
        out: Output folder.
        make_predictor: Called once, and only when there is work; picklable, so that other processes can call it.
        fingerprint: Changes whenever results would: hash of model and settings.
        source: Where the inputs were found, which says whose folder ``out`` is; none: the folders that they are in.
        follows: Of one input, what its result follows from besides, such as a mask that is edited; empty for nothing.
        version: Of this software, for the ledger.
        inspect: Opens an input before the first is done; what it cannot open fails at once. None: nothing is planned.
        columns: What a result puts into ``results.csv``.
        strict: Stop at the first input that fails.
        overwrite: Begin anew in a folder that holds another batch.
        shard: Name of this process's share.
    """

    inputs: Sequence[Path]
    out: Path
    make_predictor: Callable[[], Predictor[R]]
    fingerprint: str
    version: str
    source: Path | None = None
    follows: Callable[[Path], str] = _nothing_else
    inspect: Inspect | None = None
    columns: Callable[[R], Mapping[str, Cell]] = _no_columns
    strict: bool = False
    overwrite: bool = False
    shard: str = "0"

    def fingerprint_of(self, path: Path) -> str:
        """Changes whenever the result of this input would."""
        return "-".join(filter(None, (self.fingerprint, self.follows(path))))


@dataclass(frozen=True, kw_only=True)
class Task:
    """One input that is to be done.

    Attributes:
        path: The input.
        name: What its outputs are called.
        reason: Why it is done though it was done before; empty at the first time.
    """

    path: Path
    name: str
    reason: str = ""


def plan(job: BatchJob[R]) -> list[Task]:
    """The inputs that are not done, whole, and made from this input with these settings."""
    known = read_ledgers(job.out / "ledger")
    names = output_names(job.inputs)
    tasks = []
    for path, name in names.items():
        record = known.get(text_of(path))
        reason = _why_again(record, path, name, job) if record else ""
        if not record or reason:
            tasks.append(Task(path=path, name=name, reason=reason))
    return tasks


def output_names(inputs: Sequence[Path]) -> dict[Path, str]:
    """What the outputs of each input are called: its stem; where two share that, its name; else with a hash added."""
    unique = list(dict.fromkeys(inputs))
    stems = Counter(path.stem.casefold() for path in unique)
    names = {path: path.stem if stems[path.stem.casefold()] == 1 else path.name for path in unique}
    taken = Counter(name.casefold() for name in names.values())  # a name may be another's stem
    return {path: text_of(Path(name if taken[name.casefold()] == 1 else _hashed(path))) for path, name in names.items()}


def refuse_foreign(job: BatchJob[R]) -> None:
    """Make sure that the output folder is free or of this job, before anything is made or loaded.

    Raises:
        UsageError: It is neither, and ``overwrite`` was not asked for.
    """
    outputs = (job.out / OUTPUTS).resolve()
    if own := next((path for path in job.inputs if path.resolve().is_relative_to(outputs)), None):
        raise UsageError(f"'{own}' lies among the outputs of '{job.out}' itself. Give another --out.")
    if job.overwrite or not job.out.exists():
        return
    if not job.out.is_dir():
        raise UsageError(f"--out '{job.out}' is a file; give a folder.")
    path = job.out / JOB
    if not path.exists():
        strange = sorted(entry.name for entry in job.out.iterdir() if not entry.name.startswith("."))
        if set(strange) - {"ledger"}:
            raise UsageError(f"'{job.out}' is not empty ('{strange[0]}'). Choose another --out, or use --overwrite.")
        return
    if _known_identity(path) != _identity(job):
        raise UsageError(
            f"'{job.out}' holds a batch of other inputs, another model or other settings. "
            "Choose another --out, or use --overwrite to replace it."
        )


def take_folder(job: BatchJob[R], ledger: Ledger) -> None:
    """Write down whose folder it is, and clear what a killed process, or with ``overwrite`` another batch, left.

    Raises:
        UsageError: The folder has become another batch's meanwhile.
        EnvironmentFault: It cannot be written.
    """
    refuse_foreign(job)  # again, now that nobody else can change it
    if job.overwrite:
        _remove_recorded(job.out)
        (job.out / PLAN).unlink(missing_ok=True)
        ledger.clear()
    (job.out / OUTPUTS).mkdir(exist_ok=True)
    for folder in (job.out, job.out / OUTPUTS):
        remove_leftovers(folder)
    write_atomic(job.out / JOB, json.dumps(_identity(job), indent=1, ensure_ascii=False))


def remove_outputs(out: Path, files: Iterable[str]) -> None:
    """Remove these outputs, as the ledger names them; a name that leads elsewhere is left alone."""
    ours = (out / OUTPUTS).resolve()
    for path in (out / file for file in files):
        if path.parent.resolve() == ours:
            path.unlink(missing_ok=True)


@contextmanager
def plan_lock(out: Path) -> Iterator[None]:
    """One process at a time plans; the system frees the lock of a killed one."""
    with writing(out), (out / ".plan.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _why_again(record: Record, path: Path, name: str, job: BatchJob[R]) -> str:
    if record.status == "failed":
        return "it failed before"
    if record.fingerprint != job.fingerprint_of(path):
        return "it was made with other settings"
    if record.name != name:
        return f"its outputs are now called '{name}'"
    try:
        if stamp(path) != record.stamp:
            return "the input has changed"
    except (InputError, OSError):
        return "the input cannot be read any more"
    return next((fault for made in record.outputs if (fault := fault_of(made, job.out))), "")


def _hashed(path: Path) -> str:
    return f"{path.name}-{blake2b(text_of(path).encode(), digest_size=4).hexdigest()}"


def _identity(job: BatchJob[R]) -> dict[str, Any]:
    places = [job.source] if job.source else [path.parent for path in job.inputs]
    folders = sorted({text_of(place.resolve()) for place in places})
    return {"format": 1, "fingerprint": job.fingerprint, "version": job.version, "input_folders": folders}


def _known_identity(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):  # damaged by hand: whose it was cannot be told
        return {}


def _remove_recorded(out: Path) -> None:
    """Remove the outputs of an earlier batch, and nothing that it did not make."""
    remove_outputs(out, {made.file for record in all_records(out / "ledger") for made in record.outputs})
