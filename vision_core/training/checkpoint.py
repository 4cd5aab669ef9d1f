"""Checkpoints of a run in progress: all state that the next step depends on, so that resuming gives the same bits.

All randomness is keyed (``randomness.py``), hence no random state is saved. Reading does not go through
``bundles/foreign_weights.py``: the run wrote the file itself, so whatever cannot be read is damage, and the checkpoint
before it is tried.
"""

import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from vision_core.errors import CheckpointError
from vision_core.files import atomic_path, flush

FORMAT = 2
_NAMES = ("last.pt", "last.prev.pt")
_FREE = (  # settings that may change between the parts of a run
    "train.device",
    "train.workers",
    "train.save_every",
    "train.log_every",
    "train.eval_every",
    "train.tensorboard",
    "train.storage",
    "data.about",
    "data.licence",
    "data.synthetic",
    "data.on_corrupt",
    "data.on_missing",  # the items of both parts are compared, file by file
)
_DAMAGES = (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile)
_LOG = logging.getLogger("domainsight")

State = dict[str, Any]


def save(folder: Path, state: State) -> None:
    """Write ``last.pt`` atomically and keep the previous one as ``last.prev.pt``.

    Raises:
        EnvironmentFault: The disk is full or cannot be written.
    """
    last, previous = (folder / name for name in _NAMES)
    with atomic_path(last) as temporary:
        with temporary.open("wb") as file:
            _write({"format": FORMAT, **state}, file)
        flush(temporary)
        if last.exists():
            last.replace(previous)  # if killed here, the whole checkpoint has the name of the previous one


def load(folder: Path, config: State) -> State | None:
    """Read the newest undamaged checkpoint of a run folder; None if there is no checkpoint yet.

    Args:
        folder: The run folder.
        config: The run's configuration as JSON-ready keys; it must equal that of the checkpoint but for free settings.

    Raises:
        CheckpointError: All are damaged, of another format, or made with other settings.
    """
    faults: list[str] = []
    for path in (folder / name for name in _NAMES if (folder / name).exists()):
        try:
            state = _read(path)
        except _DAMAGES as error:
            faults.append(f"{path} is damaged: {str(error).partition(chr(10))[0][:120]}.")
            continue
        _check(path, state, config)
        for fault in faults:
            _LOG.warning("%s Going on from %s.", fault, path.name)
        return state
    if faults:
        raise CheckpointError([f"{fault} Start again with --overwrite." for fault in faults])
    return None


def _read(path: Path) -> State:
    with zipfile.ZipFile(path) as content:  # torch does not compare the checksums that it writes
        if changed := content.testzip():
            raise ValueError(f"the bytes of '{changed}' have changed")
    state: State = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return state


def _write(state: State, file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # Torch reports a failed write as its own error and keeps the reason, such as a full disk, as the context.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _check(path: Path, state: State, config: State) -> None:
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found!r}, expected {FORMAT}. Start again with --overwrite.")
    ours, theirs = _flat(config), _flat(state["config"])
    changed = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    changed = sorted(name for name in changed if name not in _FREE)
    if changed:
        listed = ", ".join(f"{name}: {theirs.get(name)!r} then, {ours.get(name)!r} now" for name in changed[:5])
        raise CheckpointError(
            f"{path} was made with other settings ({listed}). Resume with the same, or use --overwrite."
        )


def _flat(keys: State, prefix: str = "") -> State:
    flat: State = {}
    for name, value in keys.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
