"""What the processes of one training say to each other; alone, each of these gives back what it was given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

# Process 0 evaluates and delivers while the others wait; one that dies is noticed at once, by its closed connection.
_LONGEST_WAIT = timedelta(hours=12)
T = TypeVar("T")


def join(device: torch.device) -> None:
    """Meet the other processes that ``torchrun`` started; NCCL between GPUs, else Gloo."""
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_LONGEST_WAIT)


def leave() -> None:
    """Part from the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


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


def of_first(value: T) -> T:
    """What process 0 has."""
    if world_size() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held)
    return held[0]


def of_all(value: T) -> list[T]:
    """What each process has, in their order."""
    found: list[T] = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(found, value)
    return found
