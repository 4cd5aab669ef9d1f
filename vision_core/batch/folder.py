"""Output folder of a batch: its identity, its lock, and the removal of its outputs."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from vision_core.batch.inspection import PLAN
from vision_core.batch.job import BatchJob, R
from vision_core.batch.ledger import Ledger, all_records
from vision_core.errors import UsageError
from vision_core.files import remove_leftovers, text_of, write_atomic, write_readme, writing

OUTPUTS, JOB = "outputs", "job.json"
_LEDGER = "ledger"
_FILES = {
    "summary.html": "Open this first: all results on one page, to sort and to search.",
    "results.csv": "One line for each input that is done; it grows while the batch goes on. 'category' is a class, or "
    "why none is called; 'verdict' the same in words; 'notice' cautions, flags and notes. Numbers have a decimal point "
    "and cells a comma between them: tell a spreadsheet so when it asks.",
    "failures.csv": "Inputs that failed, and why; the same command tries them again.",
    "outputs": "Files of each input, named after it:",
}
_KEPT = {"ledger, job.json, plan.json": "What the same command goes on from. Leave them as they are."}
_IDENTITY = {"format", "fingerprint", "version", "input_folders"}


def refuse_foreign(job: BatchJob[R]) -> None:
    """Check that the output folder is empty or of this job; writes nothing.

    With ``job.overwrite`` it may hold another batch, never files of no batch: these are a person's own.

    Raises:
        UsageError: The folder cannot be used.
    """
    outputs = (job.out / OUTPUTS).resolve()
    if own := next((path for path in job.inputs if path.resolve().is_relative_to(outputs)), None):
        raise UsageError(f"'{own}' lies among the outputs of '{job.out}' itself. Give another --out.")
    if not job.out.exists():
        return
    if not job.out.is_dir():
        raise UsageError(f"--out '{job.out}' is a file; give a folder.")
    known = _known_identity(job.out / JOB)
    if not (known or any(all_records(job.out / _LEDGER))):
        if strange := _others(job.out):
            raise UsageError(
                f"'{job.out}' is not empty ('{strange[0]}') and holds no batch, so nothing in it is replaced. "
                "Give a new or empty folder as --out."
            )
        return
    if known != _identity(job) and not job.overwrite:
        raise UsageError(
            f"'{job.out}' holds a batch of other inputs, another model or other settings. "
            "Choose another --out, or use --overwrite to replace it."
        )


def claim_folder(job: BatchJob[R], ledger: Ledger) -> None:
    """Write the job's identity, and remove the files of replaced batches.

    Temporary files of killed processes are removed too.

    Raises:
        UsageError: Another batch has taken the folder meanwhile.
        EnvironmentFault: It cannot be written.
    """
    refuse_foreign(job)  # again, now that nobody else can change it
    if job.overwrite:
        remove_outputs(job.out, (made.file for record in all_records(job.out / _LEDGER) for made in record.outputs))
        (job.out / PLAN).unlink(missing_ok=True)
        ledger.clear()
    (job.out / OUTPUTS).mkdir(exist_ok=True)
    for folder in (job.out, job.out / OUTPUTS):
        remove_leftovers(folder)
    write_atomic(job.out / JOB, json.dumps(_identity(job), indent=1, ensure_ascii=False))


def remove_outputs(out: Path, files: Iterable[str]) -> None:
    """Remove outputs named by the ledger; names outside ``outputs/`` are ignored."""
    ours = (out / OUTPUTS).resolve()
    for path in (out / file for file in files):
        if path.parent.resolve() == ours:
            path.unlink(missing_ok=True)


def write_batch_readme(job: BatchJob[R]) -> None:
    """Write what each file of the folder is for; a person's own ``README.txt`` stays.

    Raises:
        EnvironmentFault: It cannot be written.
    """
    files = dict(_FILES)
    files |= {f"  outputs/<name>{ending}": purpose for ending, purpose in job.files.items()}
    write_readme(job.out, f"Results of a batch of {len(set(job.inputs))} inputs.", files | _KEPT)


@contextmanager
def plan_lock(out: Path) -> Iterator[None]:
    """Wait until no other process plans this batch; the system frees the lock of a killed one."""
    with writing(out), FileLock(out / ".plan.lock"):
        yield


def _identity(job: BatchJob[R]) -> dict[str, Any]:
    places = [job.source] if job.source else [path.parent for path in job.inputs]
    folders = sorted({text_of(place.resolve()) for place in places})
    return {"format": 1, "fingerprint": job.fingerprint, "version": job.version, "input_folders": folders}


def _known_identity(path: Path) -> dict[str, Any]:
    """Read the identity of a batch; empty when the file is missing, damaged or of another program."""
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
    return known if known.keys() >= _IDENTITY else {}


def _others(out: Path) -> list[str]:
    """List what lies in a folder without a batch, apart from an empty ledger."""
    visible = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith("."))
    inside = out / _LEDGER
    is_empty = inside.is_dir() and all(path.stat().st_size == 0 for path in inside.iterdir())
    return [name for name in visible if not (name == _LEDGER and is_empty)]
