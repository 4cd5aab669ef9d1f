"""Plan of a batch: the inputs to process, the reasons, and the names of their outputs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from vision_core.batch.job import BatchJob, R
from vision_core.batch.ledger import ENDED_HERE, Record, fault_of, read_ledgers
from vision_core.errors import InputError
from vision_core.files import stamp, text_of


@dataclass(frozen=True, kw_only=True)
class Task:
    """Input to process.

    Attributes:
        path: Path of the input.
        name: Stem of its outputs.
        reason: Why it is processed again; empty the first time.
        has_ended_process: Whether it failed since processes ended while they read it.
    """

    path: Path
    name: str
    reason: str = ""
    has_ended_process: bool = False


def plan(job: BatchJob[R]) -> list[Task]:
    """List the inputs without a valid result for present content and settings."""
    known = read_ledgers(job.out / "ledger")
    names = output_names(job.inputs)
    tasks = []
    for path, name in names.items():
        record = known.get(text_of(path))
        reason = _why_again(record, path, name, job) if record else ""
        if not record or reason:
            has_ended_process = record is not None and ENDED_HERE in record.reason
            tasks.append(Task(path=path, name=name, reason=reason, has_ended_process=has_ended_process))
    return tasks


def output_names(inputs: Sequence[Path]) -> dict[Path, str]:
    """Name the outputs of each input: by stem, by file name, or with a hash.

    The file name is taken where two inputs share a stem, a hash of the path added where they share that too.
    """
    unique = list(dict.fromkeys(inputs))
    stems = Counter(path.stem.casefold() for path in unique)
    names = {path: path.stem if stems[path.stem.casefold()] == 1 else path.name for path in unique}
    taken = Counter(name.casefold() for name in names.values())  # a name may be another's stem
    return {path: text_of(Path(name if taken[name.casefold()] == 1 else _hashed(path))) for path, name in names.items()}


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
    faults = (fault_of(made, job.out, reads_all=job.check_outputs) for made in record.outputs)
    return next(filter(None, faults), "")


def _hashed(path: Path) -> str:
    return f"{path.name}-{blake2b(text_of(path).encode(), digest_size=4).hexdigest()}"
