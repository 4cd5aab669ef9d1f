"""What the processes of one training say to each other; alone, each of these gives back what it was given."""

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

# Process 0 evaluates and delivers while the others wait; one that dies is noticed at once, by its closed connection.
_LONGEST_WAIT = timedelta(hours=12)
_FAULT = "domainsight fault"
_of_group: list[Any] = []  # the store through which the processes of this training have met
# It may be gone with the process that held it, and there is none where others than ``join`` have made the group.
_NO_STORE = (RuntimeError, IndexError)
T = TypeVar("T")


def join(device: torch.device) -> None:
    """Meet the other processes that ``torchrun`` started; NCCL between GPUs, else Gloo.

    Raises:
        UsageError: Something that ``torchrun`` sets is missing.
    """
    if distributed.is_initialized():
        return
    try:
        store, own, count = next(rendezvous("env://"))
    except ValueError as error:
        raise UsageError(f"{error}. Start several processes with torchrun.") from error
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore("group", store),
        rank=own,
        world_size=count,
        timeout=_LONGEST_WAIT,
    )
    _of_group[:] = [store]


def leave() -> None:
    """Part from the other processes."""
    _of_group.clear()
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def fail_together() -> Iterator[None]:
    """What ends the block in one process ends it in all, in the words of that one.

    Raises:
        EnvironmentFault: Another process is gone and has said nothing.
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
    """How many there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this one; 0 writes the files and speaks."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def wait() -> None:
    """Go on when all have come here."""
    if world_size() > 1:
        distributed.barrier()


@contextmanager
def first_process_first() -> Iterator[None]:
    """The block is run by process 0, then by the others, which find what it has made."""
    if rank() > 0:
        wait()
    yield
    if rank() == 0:
        wait()


def gather(tensor: Tensor) -> Tensor:
    """The rows of all processes in their order, ``(sum of n, ...)``; each may have another number ``n`` of them."""
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
    """The sum over all processes; no gradient flows through it."""
    summed = tensor.detach().clone()
    if world_size() > 1:
        distributed.all_reduce(summed)
    return summed


def any_of(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Which of these hold in at least one process."""
    if world_size() == 1:
        return list(flags)
    found = torch.tensor(flags, dtype=torch.int32, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return [bool(flag) for flag in found.tolist()]


def broadcast_from_first(value: T) -> T:
    """What process 0 has."""
    if world_size() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held)
    return held[0]


def gather_objects(value: T) -> list[T]:
    """What each process has, in their order."""
    found: list[T] = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(found, value)
    return found


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
        "Another process of this training is gone: killed, out of memory, or ended by a fault that it has told. "
        "Go on from the last checkpoint with --resume."
    )


def mean_row(rows: Tensor) -> Tensor:
    """The mean ``(1, n)`` over the rows ``(B, n)`` of all processes, however many each has; without a gradient."""
    rows = rows.detach()
    if world_size() == 1:
        return rows.mean(dim=0, keepdim=True)
    counted = torch.cat([rows.double().sum(dim=0), rows.new_tensor([len(rows)], dtype=torch.float64)])
    summed = total(counted)
    return (summed[:-1] / summed[-1]).to(rows.dtype)[None]


def own_rows(rows: Tensor, count: int) -> Tensor:
    """The ``count`` rows of this process among the gathered ``rows`` of all."""
    if world_size() == 1:
        return rows
    counts = gather(torch.tensor([count], device=rows.device)).tolist()
    start = sum(counts[: rank()])
    return rows[start : start + count]
