"""Folder of a training run: its file names, its lock, its ``run.json``."""

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vision_core.config.strict_yaml import read_yaml
from vision_core.errors import EnvironmentFault, UsageError, UserError
from vision_core.files import README, is_our_readme, remove_leftovers, to_json, write_atomic, write_readme
from vision_core.runs.lock import holder_of, holding

_OURS = ("config.yaml", "run.json", "last.pt", "last.prev.pt")
_CLEARED = (
    *_OURS,
    "metrics.jsonl",
    "log.txt",
    "evaluation.json",
    "report.html",
    "best.json",
    "splits.csv",
    "classes.json",
    "summary.json",
    "selection.json",
    "selection.csv",
)
_CLEARED_FOLDERS = ("model", "mean_teacher", "policy", "pictures", "best", "epoch", "tensorboard", "teachers")
_FILES = {
    "model/": "The trained model, a bundle: --checkpoint of evaluate, predict and export, checked by verify.",
    "report.html": "The run on one page: settings, curves, scores.",
    "evaluation.json": "Scores on the labelled lists, as fractions.",
    "metrics.jsonl": "Losses and scores while training, a line each.",
    "config.yaml": "All settings; train --config repeats the run.",
    "log.txt, run.json": "What was printed; command, versions, machine, times, notes.",
    "last.pt, last.prev.pt": "The state that train --resume goes on from; may be deleted when the run is done.",
    "pictures/": "Pictures and tables of the report.",
    "summary.json": "What the task says about the run, for the report.",
    "selection.json, .csv": "Numbers without labels of the source and of each kept teacher, where one is selected.",
    "teachers/": "With train.keep_teachers: states of the run by step, fp16; may be deleted when it is done.",
}
_BEFORE_A_RUN = {"data", "lock.json"}
_KNOWN = {*_CLEARED, *_CLEARED_FOLDERS, *_BEFORE_A_RUN, README}
_FACTS = {"status", "settings"}
_SECTIONS = {"method", "data", "source", "train", "optim"}


class RunFolder:
    """Run folder: ``config.yaml``, ``metrics.jsonl``, ``log.txt``, ``run.json``, ``last.pt``, ``model/``.

    Args:
        path: The folder.
        is_written: False in all but the first of several processes, which only read the folder.
        accepts_changes: Whether a resumed run may have other settings, of those that it can continue with.
    """

    def __init__(self, path: Path, *, is_written: bool = True, accepts_changes: bool = False) -> None:
        self.path, self.is_written, self.accepts_changes = path, is_written, accepts_changes
        self.model = path / "model"
        self.pictures = path / "pictures"

    def is_used(self) -> bool:
        """Tell whether the folder holds a run."""
        return any((self.path / name).exists() for name in _OURS)

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that this run cannot use; writes nothing.

        Raises:
            UsageError: It holds another run and neither ``resume`` nor ``overwrite`` is set, a running process trains
                in it, or it holds other files.
        """
        try:
            is_file = self.path.exists() and not self.path.is_dir()
        except OSError as error:
            raise self._unwritable(error) from error
        if is_file:
            raise UsageError(f"--out {self.path} is a file; give a folder.")
        # Names such as config.yaml are common: only what stands in a record proves that it is of a run.
        if foreign := [] if _holds_run(self.path) else _foreign_names(self.path):
            raise UsageError(
                f"{self.path} is no run folder: it holds {len(foreign)} other files, such as '{foreign[0]}'. "
                "Give a new or empty folder as --out."
            )
        if self.is_used() and not (resume or overwrite):
            raise UsageError(f"{self.path} holds another run. Use --resume to continue it, or --overwrite, or --out.")
        self._refuse_other_process()

    def open(self, *, resume: bool, overwrite: bool) -> None:
        """Prepare the folder for a run.

        Raises:
            UsageError: As for ``check``.
            EnvironmentFault: It cannot be written.
        """
        try:
            self.check(resume=resume, overwrite=overwrite)
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path / ".writable", "")
            (self.path / ".writable").unlink()
            remove_leftovers(self.path)
        except OSError as error:
            raise self._unwritable(error) from error
        if overwrite and not resume and self.is_used():
            self._clear()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for this process; the lock of a dead process is replaced.

        Raises:
            UsageError: A running process trains here.
        """
        if not self.is_written:
            yield
            return
        with holding(self._lock) as other:
            if other:
                raise self._in_use(other)
            yield

    def describe(self, **facts: Any) -> None:  # noqa: ANN401 (whatever JSON can hold)
        """Add facts to ``run.json``, and remove those that are None."""
        if not self.is_written:
            return
        path = self.path / "run.json"
        if not (self.path / README).exists():
            write_readme(self.path, "A run of training.", _FILES)
        known = {name: value for name, value in {**self.facts(), **facts}.items() if value is not None}
        write_atomic(path, to_json(known, indent=2, default=str))

    def facts(self) -> dict[str, Any]:
        """Read ``run.json``; empty if it is missing or damaged."""
        return _read_facts(self.path / "run.json")

    def _unwritable(self, error: OSError) -> EnvironmentFault:
        return EnvironmentFault(f"{self.path} cannot be written: {error.strerror}. Choose another --out.")

    @property
    def _lock(self) -> Path:
        return self.path / "lock.json"

    def _refuse_other_process(self) -> None:
        if other := holder_of(self._lock):
            raise self._in_use(other)

    def _in_use(self, other: str) -> UsageError:
        return UsageError(f"{self.path} is in use by process {other}. Wait for it, or choose another --out.")

    def has_begun(self) -> bool:
        """Tell whether training has begun, and not only its settings were written."""
        return (self.path / "run.json").exists()

    def withdraw(self) -> None:
        """Remove the files of a run that has not begun."""
        if not any((self.path / name).exists() for name in ("last.pt", "last.prev.pt")):
            self._clear()
        with suppress(OSError):  # others' files, or a lock, keep it
            self.path.rmdir()

    def _clear(self) -> None:
        for name in _CLEARED:
            (self.path / name).unlink(missing_ok=True)
        if is_our_readme(self.path / README):
            (self.path / README).unlink()
        for name in _CLEARED_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)


def started() -> dict[str, Any]:
    """Describe the start for ``run.json``: command, commit, time."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return {"command": shlex.join(sys.orig_argv[1:]), "commit": _commit(), "started": now}


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    found = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def _holds_run(folder: Path) -> bool:
    """Tell whether ``run.json`` or ``config.yaml`` is as a run writes it."""
    if _FACTS & _read_facts(folder / "run.json").keys():
        return True
    try:
        return set(read_yaml(folder / "config.yaml")) >= _SECTIONS
    except (UserError, OSError):
        return False


def _foreign_names(folder: Path) -> list[str]:
    """List what a folder without a run holds; names that no run has come first, alone."""
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []
    return [name for name in found if name not in _KNOWN] or [name for name in found if name not in _BEFORE_A_RUN]


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a damaged one is written anew: training does not depend on it
        return {}
    return facts if isinstance(facts, dict) else {}
