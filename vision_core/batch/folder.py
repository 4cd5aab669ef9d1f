"""The output folder of a batch: whose it is, its lock, and what of it may be removed."""

import fcntl
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vision_core.batch.inspection import PLAN
from vision_core.batch.job import BatchJob, R
from vision_core.batch.ledger import Ledger, all_records
from vision_core.errors import UsageError
from vision_core.files import remove_leftovers, text_of, write_atomic, writing

OUTPUTS, JOB = "outputs", "job.json"


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


def claim_folder(job: BatchJob[R], ledger: Ledger) -> None:
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
