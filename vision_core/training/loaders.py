"""Batches of a training set in a keyed order, read by worker processes that may die without harm."""

import dataclasses
import logging
import signal
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

from vision_core.environment import keep_offline
from vision_core.errors import EnvironmentFault, UserError
from vision_core.randomness import key

MAX_RESTARTS = 3

_LOG = logging.getLogger("domainsight")
_WORKER_DIED = "DataLoader worker (pid"  # how torch begins to say so
Place = tuple[int, int]
B = TypeVar("B")


class Items(Protocol):
    """A data set whose items may differ from epoch to epoch; ``collate`` joins those of a step."""

    def __getitem__(self, place: Place) -> Any: ...  # noqa: ANN401 (each task has its own items)
    def collate(self, items: list[Any]) -> Any:  # noqa: ANN401
        """The batch of a step."""


@dataclass(frozen=True, kw_only=True)
class EpochBatches:
    """The (epoch, index) pairs of every step that is left of a training, in an order that follows from the seed.

    A step takes ``batch_size`` items per process; the last step of an epoch takes what remains, which may leave a
    process without items.

    Attributes:
        num_items: Length of the data set.
        batch_size: Items per step and process.
        epochs: Passes over the data set, counted from the start of the training.
        seed: Of the training.
        start_step: Steps done already; the order goes on in mid-epoch.
        rank: This process among ``world_size``.
        world_size: Processes that share each step.
        drop_last: Leave out the last step of an epoch when it has fewer items than the others.
        shuffled: False keeps the order of the data set, as evaluation wants it.
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
        """Steps that are left."""
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
                gather_objects = order[at : at + self._items_per_step]
                yield [(epoch, index) for index in gather_objects[self.rank :: self.world_size]]

    @property
    def _items_per_step(self) -> int:
        return self.batch_size * self.world_size

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffled:
            return list(range(self.num_items))
        generator = torch.Generator().manual_seed(key("order", self.seed, epoch))
        return torch.randperm(self.num_items, generator=generator).tolist()


def batches(items: Items, order: EpochBatches, *, workers: int = 0, pin_memory: bool = False) -> Iterator[Any]:
    """The collated batch of each step of ``order``.

    When a worker process dies, reading goes on with new workers at the step that was not delivered; as all draws are
    keyed, the batches are those of an undisturbed run.

    Args:
        items: The data set.
        order: Which items make which step.
        workers: Reading processes; 0 reads in this one.
        pin_memory: Put tensors in page-locked memory, for copies to a GPU that do not block.

    Raises:
        UserError: What an item raised, such as an ``InputError`` that names a file, as it was raised.
        EnvironmentFault: Workers died more than ``MAX_RESTARTS`` times.
    """
    end = order.start_step + len(order)
    restarts = 0
    while order.start_step < end:
        try:
            for parcel in make_loader(items, order, workers=workers, pin_memory=pin_memory):
                order = dataclasses.replace(order, start_step=order.start_step + 1)
                yield parcel.open()
        except _WorkerDied as death:
            restarts += 1
            _note_death(order, restarts, death)


def make_loader(items: Items, order: EpochBatches, *, workers: int = 0, pin_memory: bool = False) -> "Iterator[Parcel]":
    """One pass of a ``DataLoader`` over ``order``, as parcels; ``batches`` opens them and survives dead workers."""
    loader: DataLoader[Any] = DataLoader(
        _Guarded(items),
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_Packer(items.collate),
        pin_memory=pin_memory,
        worker_init_fn=_settle if workers else None,
        generator=torch.Generator().manual_seed(0),  # its own: the loader draws a seed, which nobody uses
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
    """``batch`` with every tensor changed, through dataclasses, tuples, lists and dicts; all else stays."""
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
    """``batch`` with every tensor on ``device``; the copy does not block when the memory is pinned."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What a worker hands over: a collated batch, or the fault of an item in it.

    Torch would wrap the fault into a traceback as text; here it arrives as what was raised.
    """

    content: Any = None
    fault: UserError | None = None

    def open(self) -> Any:  # noqa: ANN401
        """The batch; raises the fault."""
        if self.fault:
            raise self.fault
        return self.content

    def pin_memory(self) -> "Parcel":
        """The same in page-locked memory; torch calls this, as it does not look into dataclasses by itself."""
        return Parcel(content=map_tensors(Tensor.pin_memory, self.content), fault=self.fault)


class _WorkerDied(RuntimeError):
    """A worker process is gone."""


class _Guarded(Dataset[Any]):
    """The items, with faults as values."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def __getitem__(self, place: Place) -> Any:  # noqa: ANN401
        try:
            return self._items[place]
        except UserError as fault:
            return fault


class _Packer:
    """Makes a parcel of the items of a step."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, items: list[Any]) -> Parcel:
        faults = [item for item in items if isinstance(item, UserError)]
        if faults:
            return Parcel(fault=faults[0])
        # Of a last partial step among several processes, one may have nothing.
        return Parcel(content=self._collate(items) if items else None)


def _settle(_worker: int) -> None:
    """In a new worker: one thread, no network, and signals as in any process; the parent alone stops a run."""
    keep_offline()
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's handler was inherited and would not end this process


@contextmanager
def _without_opencv_threads() -> Iterator[None]:
    """End OpenCV's threads while workers are forked: a worker that inherits the pool without them waits for ever."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def _deaths_seen_while_waiting() -> Iterator[None]:
    """Take back torch's SIGCHLD handler, which raises in the middle of whatever the main thread is doing.

    The loader then notices a dead worker where we can catch it: when it waits for a batch, within five seconds.
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
    if restarts > MAX_RESTARTS:
        raise EnvironmentFault(
            f"Loader workers died {restarts} times, now {where}: {death}. Often memory is short: "
            "use a smaller train.workers; with train.workers=0 the cause shows itself."
        ) from death
    # As text: a log record that kept the exception would keep the old loader and its workers alive.
    _LOG.warning("A loader worker died %s (%s); restart %d of %d.", where, str(death), restarts, MAX_RESTARTS)
