"""Checkpoints of a run in progress: everything that the next step depends on, so that resuming gives the same bits.

All randomness is keyed (``randomness.py``), hence no random state is saved.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from vision_core.errors import CheckpointError
from vision_core.files import atomic_path

FORMAT = 1
_NAMES = ("last.pt", "last.prev.pt")
_FREE = ("train.workers", "train.save_every", "train.log_every", "train.eval_every", "train.tensorboard")

State = dict[str, Any]


def save(folder: Path, state: State) -> None:
    """Write ``last.pt`` beside, flush it, and rename; the one before stays as ``last.prev.pt``."""
    last, previous = (folder / name for name in _NAMES)
    with atomic_path(last) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)
        if last.exists():
            _keep(last, previous)


def load(folder: Path, config: State) -> State | None:
    """The newest whole checkpoint of ``folder``, or nothing when there is none yet.

    Args:
        folder: The run folder.
        config: The run's configuration as JSON-ready keys; it must be the one that the checkpoint was made with.

    Raises:
        CheckpointError: All are damaged, of another format, or made with other settings.
    """
    present = [folder / name for name in _NAMES if (folder / name).exists()]
    faults = []
    for path in present:
        try:
            state: State = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError) as error:
            faults.append(f"{path} is damaged: {str(error).splitlines()[0][:120]}. Start again with --overwrite.")
            continue
        _check(path, state, config)
        return state
    if faults:
        raise CheckpointError(faults)
    return None


def _keep(last: Path, previous: Path) -> None:
    # A hard link, then a rename: at no moment is there a folder without a whole checkpoint.
    link = previous.with_name(previous.name + ".link")
    link.unlink(missing_ok=True)
    os.link(last, link)
    link.replace(previous)


def _check(path: Path, state: State, config: State) -> None:
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {state.get('format')!r}, expected {FORMAT}. Start again.")
    ours, theirs = _flat(config), _flat(state["config"])
    changed = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    changed = sorted(name for name in changed if name not in _FREE)
    if changed:
        listed = ", ".join(f"{name}: {theirs.get(name)!r} then, {ours.get(name)!r} now" for name in changed[:5])
        raise CheckpointError(f"{path} was made with other settings ({listed}). Resume with the same, or use --overwrite.")


def _flat(keys: State, prefix: str = "") -> State:
    flat: State = {}
    for name, value in keys.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
