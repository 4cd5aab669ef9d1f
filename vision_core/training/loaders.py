"""Batches of a training set in a keyed order, read by worker processes that are replaced when they die.

``DataLoader`` alone does not do that: it ends the training when the system kills one of its workers, as it does where
memory is short.
"""

import dataclasses
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol, TypeVar

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vision_core.config.schema import Train
from vision_core.environment import keep_offline
from vision_core.errors import DataError, EnvironmentFault, UserError
from vision_core.randomness import key

_MAX_RESTARTS = 3

_LOG = logging.getLogger("domainsight")
_WORKER_DIED = "DataLoader worker (pid"  # start of torch's message
Place = tuple[int, int]
B = TypeVar("B")


class Items(Protocol):
    """Data set whose items depend on the epoch; ``collate`` joins those of a step."""

    def __getitem__(self, place: Place) -> Any: ...  # noqa: ANN401 (each task has its own items)
    def collate(self, items: list[Any]) -> Any:  # noqa: ANN401
        """Join the items of a step into a batch."""


@dataclass(frozen=True, kw_only=True)
class EpochBatches:
    """Sampler of the (epoch, index) pairs of each remaining step, in keyed order.

    A step takes ``batch_size`` items per process; the last step of an epoch takes the remaining ones, which may leave
    a process without items.

    Attributes:
        num_items: Length of the data set.
        batch_size: Items per step and process.
        epochs: Passes over the data set, counted from the start of the training.
        seed: Seed of the order.
        start_step: Steps done already; the order continues in mid-epoch.
        rank: Number of this process among ``world_size``.
        world_size: Processes that share each step.
        drop_last: Leave out the last step of an epoch when it has fewer items than the others.
        shuffled: False keeps the order of the data set, for evaluation.
    """

    num_items: int
    batch_size: int
    epochs: int = 1
    seed: int = 0
    start_step: int = 0
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False
    shuffled: bool = True

    @property
    def steps_per_epoch(self) -> int:
        """Steps in a pass over the data set, the last partial one included unless ``drop_last``."""
        if self.drop_last:
            return self.num_items // self._items_per_step
        return -(-self.num_items // self._items_per_step)

    def __len__(self) -> int:
        """Count the remaining steps."""
        return max(0, self.epochs * self.steps_per_epoch - self.start_step)

    def __iter__(self) -> Iterator[list[Place]]:
        if not self.steps_per_epoch:
            return
        first_epoch, skipped = divmod(self.start_step, self.steps_per_epoch)
        for epoch in range(first_epoch, self.epochs):
            order = self._order(epoch)
            start = skipped * self._items_per_step if epoch == first_epoch else 0
            end = min(self.steps_per_epoch * self._items_per_step, self.num_items)
            for at in range(start, end, self._items_per_step):
                of_step = order[at : at + self._items_per_step]
                yield [(epoch, index) for index in of_step[self.rank :: self.world_size]]

    @property
    def _items_per_step(self) -> int:
        return self.batch_size * self.world_size

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffled:
            return list(range(self.num_items))
        generator = torch.Generator().manual_seed(key("order", self.seed, epoch))
        return torch.randperm(self.num_items, generator=generator).tolist()


class Steps:
    """Arithmetic of steps, epochs and updates: an update takes the gradients of ``train.accumulate`` steps.

    Args:
        num_items: Length of the data set.
        train: Settings of the loop.
        rank: Number of this process among ``world_size``.
        world_size: Processes that share each step.

    Raises:
        DataError: The items make no step.
    """

    def __init__(self, num_items: int, train: Train, rank: int = 0, world_size: int = 1) -> None:
        self.order = EpochBatches(
            num_items=num_items,
            batch_size=train.batch_size,
            epochs=train.epochs,
            seed=train.seed,
            drop_last=train.drop_last,
            rank=rank,
            world_size=world_size,
        )
        self.accumulate, self.per_epoch = train.accumulate, self.order.steps_per_epoch
        if not self.per_epoch:
            raise DataError(
                f"{num_items} items make no step of {train.batch_size} (train.batch_size, train.drop_last). "
                "Use a smaller batch, or more items."
            )
        self.total = min(self.per_epoch * train.epochs, train.max_steps or sys.maxsize)
        self.updates_per_epoch = -(-self.per_epoch // train.accumulate)
        self.total_updates = self.update_of(self.total - 1) + 1

    def update_of(self, step: int) -> int:
        """Compute the number of the update that ``step`` contributes to, which is what schedules count."""
        epoch, in_epoch = divmod(step, self.per_epoch)
        return epoch * self.updates_per_epoch + in_epoch // self.accumulate

    def complete_update(self, done: int) -> bool:
        """Tell whether an update follows after ``done`` steps; the end of an epoch completes one early."""
        in_epoch = (done - 1) % self.per_epoch + 1
        return in_epoch == self.per_epoch or done == self.total or in_epoch % self.accumulate == 0

    def in_update_of(self, step: int) -> int:
        """Count the steps of the update that ``step`` contributes to; the last one of an epoch may have fewer."""
        first = step - step % self.per_epoch % self.accumulate
        epoch_end = (step // self.per_epoch + 1) * self.per_epoch
        return min(self.accumulate, epoch_end - first, self.total - first)

    def own_weight(self, step: int) -> float:
        """Compute the factor that turns the mean over processes into one over items: their numbers may differ."""
        world, batch_size = self.order.world_size, self.order.batch_size
        if world == 1:
            return 1.0
        in_step = min(batch_size * world, self.order.num_items - step % self.per_epoch * batch_size * world)
        return len(range(self.order.rank, in_step, world)) * world / in_step


def batches(items: Items, order: EpochBatches, *, workers: int = 0, pin_memory: bool = False) -> Iterator[Any]:
    """Read the collated batch of each step of ``order``.

    When a worker process dies, new workers continue at the first step that was not delivered; as all random draws are
    keyed, the batches are those of an undisturbed run.

    Args:
        items: The data set.
        order: Items of each step.
        workers: Loader processes; 0 reads in this one.
        pin_memory: Put tensors in page-locked memory, so that copies to a GPU do not block.

    Raises:
        UserError: Raised by an item, such as an ``InputError`` that names a file; passed on unchanged.
        EnvironmentFault: Workers died more than three times.
    """
    end = order.start_step + len(order)
    restarts = 0
    while order.start_step < end:
        try:
            for parcel in _parcels(items, order, workers=workers, pin_memory=pin_memory):
                order = dataclasses.replace(order, start_step=order.start_step + 1)
                yield parcel.open()
        except _WorkerDied as death:
            restarts += 1
            _note_death(order, restarts, death)


def _parcels(items: Items, order: EpochBatches, *, workers: int, pin_memory: bool) -> "Iterator[Parcel]":
    """Pass once through a ``DataLoader`` over ``order``; raises ``_WorkerDied``."""
    loader: DataLoader[Any] = DataLoader(
        _Guarded(items),
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_Packer(items.collate),
        pin_memory=pin_memory,
        worker_init_fn=_settle if workers else None,
        generator=torch.Generator().manual_seed(0),  # its own: the loader draws a seed from it, which nothing uses
    )
    with _deaths_seen_while_waiting(), _without_opencv_threads():
        parcels = iter(loader)
    while True:
        try:
            parcel = next(parcels)
        except StopIteration:
            return
        except RuntimeError as error:
            if str(error).startswith(_WORKER_DIED):
                raise _WorkerDied(str(error)) from error
            raise
        yield parcel


def map_tensors(change: Callable[[Tensor], Tensor], batch: B) -> B:
    """Change every tensor of ``batch``, within dataclasses, tuples, lists and dicts."""
    found: Any = batch
    if isinstance(found, Tensor):
        found = change(found)
    elif dataclasses.is_dataclass(found) and not isinstance(found, type):
        fields = [field.name for field in dataclasses.fields(found) if field.init]
        found = dataclasses.replace(found, **{name: map_tensors(change, getattr(found, name)) for name in fields})
    elif isinstance(found, dict):
        found = {name: map_tensors(change, value) for name, value in found.items()}
    elif isinstance(found, tuple) and hasattr(found, "_fields"):
        found = type(found)(*(map_tensors(change, value) for value in found))
    elif isinstance(found, list | tuple):
        found = type(found)(map_tensors(change, value) for value in found)
    return found  # type: ignore[no-any-return]


def to_device(batch: B, device: torch.device) -> B:
    """Copy every tensor of ``batch`` to ``device``, without blocking from pinned memory."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """Message from a worker: a collated batch, or the error of one of its items.

    Torch would turn the error into a traceback as text; here it is passed on as an exception object.
    """

    content: Any = None
    fault: UserError | None = None

    def open(self) -> Any:  # noqa: ANN401
        """Return the batch, or raise the error."""
        if self.fault:
            raise self.fault
        return self.content

    def pin_memory(self) -> "Parcel":
        """Copy the batch to page-locked memory; called by torch, which ignores dataclasses."""
        return Parcel(content=map_tensors(Tensor.pin_memory, self.content), fault=self.fault)


class _WorkerDied(RuntimeError):
    """Death of a worker process."""


class _Guarded(Dataset[Any]):
    """Data set that returns errors as values."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def __getitem__(self, place: Place) -> Any:  # noqa: ANN401
        try:
            return self._items[place]
        except UserError as fault:
            return fault


class _Packer:
    """Collate function that makes a ``Parcel`` of the items of a step."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, items: list[Any]) -> Parcel:
        faults = [item for item in items if isinstance(item, UserError)]
        if faults:
            return Parcel(fault=faults[0])
        # In the last partial step of several processes, one may have no items.
        return Parcel(content=self._collate(items) if items else None)


def _settle(_worker: int) -> None:
    """Prepare a new worker: one thread, no network, default signals, as the parent alone stops a run."""
    keep_offline()
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's handler was inherited and would not end this process


@contextmanager
def _without_opencv_threads() -> Iterator[None]:
    """End OpenCV's threads during the fork: a worker would wait for threads that it does not inherit."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def _deaths_seen_while_waiting() -> Iterator[None]:
    """Remove torch's SIGCHLD handler, which raises anywhere in the main thread.

    The loader then reports a dead worker where it can be caught: while it waits for a batch, within five seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Callable[[int, FrameType | None], Any] | int | None = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _note_death(order: EpochBatches, restarts: int, death: _WorkerDied) -> None:
    where = f"at step {order.start_step}"
    if restarts > _MAX_RESTARTS:
        raise EnvironmentFault(
            f"Loader workers died {restarts} times, now {where}: {death}. Often memory is short: "
            "use a smaller train.workers; with train.workers=0 the cause shows itself."
        ) from death
    # As text: a log record that kept the exception would keep the old loader and its workers alive.
    _LOG.warning("A loader worker died %s (%s); restart %d of %d.", where, str(death), restarts, _MAX_RESTARTS)
