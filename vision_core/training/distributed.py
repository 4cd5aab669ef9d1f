"""Communication between the processes of one training; a single process gets its own values back."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vision_core import errors
from vision_core.errors import EnvironmentFault, Interrupted, UsageError, UserError

# Process 0 evaluates and writes while the others wait; a dead one is noticed at once, by its closed connection.
_LONGEST_WAIT = timedelta(hours=12)
# GPUs wait for each other within a step alone, at most for a checkpoint: longer, and one of them hangs.
_LONGEST_STEP = timedelta(minutes=10)
_FAULT = "domainsight fault"
_of_group: list[Any] = []  # the key-value store of the processes, made by ``join``
_between_hosts: list[Any] = []  # a group for objects and long waits where the first one is between GPUs
# The store ends with the process that holds it, and is missing where another caller than ``join`` made the group.
_NO_STORE = (RuntimeError, IndexError)
T = TypeVar("T")


def join(device: torch.device) -> None:
    """Join the other processes that ``torchrun`` started: NCCL between GPUs, else Gloo.

    Between GPUs, objects and long waits go through a second group, of the hosts: NCCL would send them through the GPU
    in use, and would end the training while process 0 evaluates.

    Args:
        device: The GPU of this process alone, with its index, or the CPU.

    Raises:
        UsageError: An environment variable of ``torchrun`` is missing.
    """
    if distributed.is_initialized():
        return
    try:
        store, own, count = next(rendezvous("env://"))
    except ValueError as error:
        raise UsageError(f"{error}. Start several processes with torchrun.") from error
    is_gpu = device.type == "cuda"
    distributed.init_process_group(
        "nccl" if is_gpu else "gloo",
        store=PrefixStore("group", store),
        rank=own,
        world_size=count,
        timeout=_LONGEST_STEP if is_gpu else _LONGEST_WAIT,
        device_id=device if is_gpu else None,
    )
    if is_gpu:
        _between_hosts[:] = [distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)]
    _of_group[:] = [store]


def leave() -> None:
    """Leave the process group."""
    _of_group.clear()
    _between_hosts.clear()
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def fail_together() -> Iterator[None]:
    """End the block in all processes with the first error of one.

    Raises:
        EnvironmentFault: Another process has ended without a message.
    """
    try:
        yield
    except UserError as fault:
        _tell(fault)
        raise
    except KeyboardInterrupt:
        _tell(Interrupted("Stopped."))
        raise
    except RuntimeError as error:
        if world_size() == 1 or not _has_lost_another(error):
            raise
        raise _fault_of_another() from error


def world_size() -> int:
    """Count the processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; 0 writes the files and the messages."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def wait() -> None:
    """Wait until all processes have come here."""
    if world_size() > 1:
        distributed.barrier(_hosts())


@contextmanager
def first_process_first() -> Iterator[None]:
    """Run the block in process 0, then in the others."""
    if rank() > 0:
        wait()
    yield
    if rank() == 0:
        wait()


def gather(tensor: Tensor) -> Tensor:
    """Gather the rows ``(n, ...)`` of all processes in order; ``n`` may differ."""
    if world_size() == 1:
        return tensor
    count = torch.tensor([len(tensor)], device=tensor.device)
    counts = [torch.empty_like(count) for _ in range(world_size())]
    distributed.all_gather(counts, count)
    rows = [int(each) for each in counts]
    padded = tensor.new_zeros(max(rows), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in rows]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, rows, strict=True)])


def total(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, without a gradient."""
    summed = tensor.detach().clone()
    if world_size() > 1:
        distributed.all_reduce(summed)
    return summed


def total_with_gradient(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, each of which then has the gradient of its own part."""
    if world_size() == 1:
        return tensor
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(tensor)  # type: ignore[no-any-return]


def any_of(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Tell for each flag whether it is set in any process."""
    if world_size() == 1:
        return list(flags)
    found = torch.tensor(flags, dtype=torch.int32, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return [bool(flag) for flag in found.tolist()]


def broadcast_from_first(value: T) -> T:
    """Send the value of process 0 to all."""
    if world_size() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held, group=_hosts())
    return held[0]


def gather_objects(value: T) -> list[T]:
    """Gather the value of each process, in order."""
    found: list[T] = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(found, value, group=_hosts())
    return found


def _hosts() -> Any:  # noqa: ANN401 (torch's type of a group has no public name)
    return _between_hosts[0] if _between_hosts else None


def _tell(fault: UserError) -> None:
    if world_size() == 1 or fault.is_repeated:
        return
    known = next(kind.__name__ for kind in type(fault).__mro__ if kind.__module__ == errors.__name__)
    with suppress(*_NO_STORE):
        _of_group[0].set(_FAULT, json.dumps([known, fault.problems]))


def _has_lost_another(error: RuntimeError) -> bool:
    # Gloo's errors are known by the place in its sources that they begin with.
    return isinstance(error, distributed.DistError) or "gloo/" in str(error)


def _fault_of_another() -> UserError:
    with suppress(*_NO_STORE):
        if _of_group[0].check([_FAULT]):
            kind, problems = json.loads(_of_group[0].get(_FAULT))
            fault: UserError = getattr(errors, kind)(problems)
            fault.is_repeated = True
            return fault
    return EnvironmentFault(
        "Another process of this training is gone: killed, out of memory, or ended by an error that it has printed. "
        "Continue from the last checkpoint with --resume."
    )


def mean_row(rows: Tensor) -> Tensor:
    """Average the rows ``(B, n)`` of all processes to ``(1, n)``, without a gradient."""
    rows = rows.detach()
    if world_size() == 1:
        return rows.mean(dim=0, keepdim=True)
    counted = torch.cat([rows.double().sum(dim=0), rows.new_tensor([len(rows)], dtype=torch.float64)])
    summed = total(counted)
    return (summed[:-1] / summed[-1]).to(rows.dtype)[None]


def own_rows(rows: Tensor, count: int) -> Tensor:
    """Select the ``count`` rows of this process from the gathered ``rows``."""
    if world_size() == 1:
        return rows
    counts = gather(torch.tensor([count], device=rows.device)).tolist()
    start = sum(counts[: rank()])
    return rows[start : start + count]
