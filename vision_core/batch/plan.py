"""What a batch is to do, and whose its output folder is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from vision_core.batch.job import BatchJob, R
from vision_core.batch.ledger import Record, fault_of, read_ledgers
from vision_core.errors import InputError
from vision_core.files import stamp, text_of


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
