"""Checkpoints of a run in progress: all state that the next step depends on, so that resuming gives the same bits.

All randomness is keyed (``randomness.py``), hence no random state is saved. Reading does not go through
``bundles/foreign_weights.py``: the run wrote the file itself, so whatever cannot be read is damage, and the checkpoint
before it is tried.
"""

import logging
import pickle
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor, nn

from vision_core.errors import CheckpointError
from vision_core.files import atomic_path, flush

FORMAT = 2
_NAMES = ("last.pt", "last.prev.pt")
_FREE = (  # settings that may change between the parts of a run
    "train.device",
    "train.workers",
    "train.deterministic",
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
    "train.on_bad_loss",
    "pseudo_labels.on_nothing",
    "verdict.source_images",
    "verdict.images",
    "preset",  # only a choice of other settings, which are compared
)
_ACCEPTED = {  # what --accept-changes lets change as well, by section: the steps that are done stay what they are
    "train": {"epochs", "max_steps", "patience", "patience_from", "precision", "compile"},
    "optim": {"lr", "lr_end", "clip_norm", "weight_decay", "schedule", "schedule_by", "warmup_steps", "warmup_start",
              "milestones"},
    "data": {"root", "labels", "features", "class_list", "cache", "eval_split"},
    "source": {"weights", "config"},
}  # fmt: skip
_STATISTICS = (".running_mean", ".running_var")
_DAMAGES = (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile)
_LOG = logging.getLogger("domainsight")

State = dict[str, Any]


@dataclass(kw_only=True)
class Counters:
    """Progress of a run, saved with every checkpoint.

    Attributes:
        step: Steps done.
        updates: Updates of the weights.
        empty_steps: Steps without a loss.
        skipped_updates: Updates left out since gradients were beyond fp16.
        skipped_in_a_row: The newest of them.
        bad_losses: Steps left out since a loss was not finite.
        bad_in_a_row: The newest of them.
        teacher_moves: Updates of the teacher.
        teacher_moved_at: Steps done at the last of them.
        history: First value of each evaluation.
    """

    step: int = 0
    updates: int = 0
    empty_steps: int = 0
    skipped_updates: int = 0
    skipped_in_a_row: int = 0
    bad_losses: int = 0
    bad_in_a_row: int = 0
    teacher_moves: int = 0
    teacher_moved_at: int = 0
    history: list[float] = field(default_factory=list)


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


def load(folder: Path, config: State, *, checked: Collection[str] = (), accepts_changes: bool = False) -> State | None:
    """Read the newest sound checkpoint of a run folder; None if there is no checkpoint yet.

    Args:
        folder: The run folder.
        config: The run's configuration as JSON-ready keys; it must equal that of the checkpoint but for free settings.
        checked: Entries of the learner that must be finite, as ``checked_entries`` lists them.
        accepts_changes: Whether settings that a run can continue with may differ too.

    Raises:
        CheckpointError: All are damaged or not finite, of another format, or made with other settings.
    """
    faults: list[str] = []
    for path in (folder / name for name in _NAMES if (folder / name).exists()):
        try:
            state = _read(path)
        except _DAMAGES as error:
            faults.append(f"{path} is damaged: {str(error).partition(chr(10))[0][:120]}.")
            continue
        _check(path, state, config, accepts_changes=accepts_changes)
        if wrong := not_finite(state, checked):
            faults.append(f"{path} holds {len(wrong)} entries that are not finite, first '{wrong[0]}'.")
            continue
        for fault in faults:
            _LOG.warning("%s Going on from %s.", fault, path.name)
        return state | {"file": path.name}
    if faults:
        raise CheckpointError([f"{fault} Start again with --overwrite." for fault in faults])
    return None


def keep_only(folder: Path, state: State) -> None:
    """Replace an unsound newest checkpoint by the one before, from which the run goes on."""
    if state["file"] != _NAMES[0]:
        (folder / state["file"]).replace(folder / _NAMES[0])


def checked_entries(learner: nn.Module) -> frozenset[str]:
    """List the entries of a learner that are finite unless it has diverged: parameters and statistics of norms.

    Other buffers may hold NaN for what is not known yet.
    """
    statistics = (name for name, _ in learner.named_buffers() if name.endswith(_STATISTICS))
    return frozenset(name for name, _ in learner.named_parameters()) | frozenset(statistics)


def not_finite(state: State, checked: Collection[str]) -> list[str]:
    """List the entries of learner and optimizers that are not finite; they are read from the device at once."""
    held = {name: entry for name, entry in state.get("learner", {}).items() if name in checked}
    held |= dict(_tensors(state.get("optimizers", {}), "optimizer"))
    floating = {name: entry for name, entry in held.items() if entry.is_floating_point()}
    if not floating:
        return []
    are_finite = torch.stack([entry.isfinite().all() for entry in floating.values()]).tolist()
    return [name for name, is_finite in zip(floating, are_finite, strict=True) if not is_finite]


def changes(state: State, config: State) -> dict[str, list[Any]]:
    """List the settings that differ from those of a checkpoint, but for free ones: values then and now."""
    ours, theirs = _flat(config), _flat(state["config"])
    names = sorted(name for name in ours.keys() | theirs.keys() if name not in _FREE)
    return {name: [theirs.get(name), ours.get(name)] for name in names if theirs.get(name) != ours.get(name)}


def teacher_of_before(
    counters: Mapping[str, Any], moves: Literal["step", "epoch"] | None, steps_per_epoch: int
) -> dict[str, int]:
    """Work out the moves of the teacher, which older checkpoints do not count."""
    step = counters["step"]
    epochs = step // steps_per_epoch
    known = {"epoch": (epochs, epochs * steps_per_epoch), "step": (counters["updates"], step), None: (0, 0)}
    count, at = known[moves]
    return {"teacher_moves": count, "teacher_moved_at": at}


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


def _check(path: Path, state: State, config: State, *, accepts_changes: bool) -> None:
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found!r}, expected {FORMAT}. Start again with --overwrite.")
    changed = changes(state, config)
    fixed = {name: values for name, values in changed.items() if not _is_acceptable(name)}
    if not changed or (accepts_changes and not fixed):
        return
    told = fixed if accepts_changes else changed
    listed = ", ".join(f"{name}: {then!r} then, {now!r} now" for name, (then, now) in list(told.items())[:5])
    accept = "" if fixed else ", add --accept-changes to go on with the new ones"
    raise CheckpointError(
        f"{path} was made with other settings ({listed}). Resume with the same{accept}, or use --overwrite."
    )


def _is_acceptable(name: str) -> bool:
    section, _, key = name.rpartition(".")
    return key in _ACCEPTED.get(section.rpartition(".")[2].removeprefix("policy_"), ())


def _tensors(nested: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in nested.items():
        if isinstance(value, Tensor):
            yield f"{prefix}.{name}", value
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}.{name}")


def _flat(keys: State, prefix: str = "") -> State:
    flat: State = {}
    for name, value in keys.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
