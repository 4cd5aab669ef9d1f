"""States of a run that are kept beside its checkpoint: the teachers of an adaptation, from which one can be chosen.

A state is written before the checkpoint of its step, and flushed: a killed run has all that its checkpoint has passed,
and computes the others again with the same bits.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from vision_core.errors import CheckpointError
from vision_core.files import atomic_path, remove_leftovers
from vision_core.runs.folder import RunFolder

FOLDER = "teachers"
_PREFIX, _SUFFIX = "step-", ".safetensors"
_CAST = (torch.float32, torch.float64)


def kept_steps(total: int, count: int | None) -> tuple[int, ...]:
    """Spread ``count`` steps evenly over a run of ``total``; the last is its end. Fewer where there are fewer steps."""
    return tuple(sorted({-(-total * place // count) for place in range(1, count + 1)})) if count else ()


def size_of(module: nn.Module, total: int, count: int | None) -> int:
    """Compute the bytes on disk of the kept states of a run."""
    halves = 0
    for each in module.state_dict().values():
        halves += each.numel() * (2 if each.dtype in _CAST else each.element_size())
    return halves * len(kept_steps(total, count))


class KeptTeachers:
    """States in the folder ``teachers`` of a run, in fp16.

    Args:
        run: The run; only its first process writes.
        total: Steps of the run.
        count: States to keep; None: none.
    """

    def __init__(self, run: RunFolder, total: int, count: int | None) -> None:
        self._folder, self._is_written = run.path / FOLDER, run.is_written
        self._steps = frozenset(kept_steps(total, count))

    def forget_after(self, step: int) -> None:
        """Remove the states after ``step``, which a resumed run computes again, and what a killed one was writing."""
        if not self._is_written or not self._folder.is_dir():
            return
        remove_leftovers(self._folder)
        for path in (path for at, path in list_kept(self._folder.parent).items() if at > step):
            path.unlink()

    def keep(self, step: int, product: Callable[[], nn.Module]) -> None:
        """Write the state after ``step`` if it is one of those to keep.

        Raises:
            EnvironmentFault: The disk is full or cannot be written.
        """
        if step not in self._steps or not self._is_written:
            return
        stored = {name: _halved(tensor) for name, tensor in product().state_dict().items()}
        with atomic_path(self._folder / f"{_PREFIX}{step:09d}{_SUFFIX}") as partial:
            partial.write_bytes(safetensors.torch.save(stored))


def list_kept(run: Path) -> dict[int, Path]:
    """List the kept states of a run folder by their step, in order."""
    names = sorted((run / FOLDER).glob(f"{_PREFIX}*{_SUFFIX}"))
    steps = {path: path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for path in names}
    return {int(step): path for path, step in steps.items() if step.isdigit()}


def load_kept(path: Path) -> Mapping[str, Tensor]:
    """Read a kept state, in fp32; integers keep their type.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        stored = safetensors.torch.load(path.read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read: {str(error)[:120]}. Train again with --overwrite, or delete it."
        ) from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in stored.items()}


def _halved(tensor: Tensor) -> Tensor:
    """Cast to fp16 on the CPU, unless a number is beyond it: statistics of norms can be."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype not in _CAST:
        return tensor.clone()
    half = tensor.half()
    return half if bool(half.isfinite().all()) else tensor.float()
