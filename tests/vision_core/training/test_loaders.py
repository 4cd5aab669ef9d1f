import logging
import os
import signal
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import dataloader

from vision_core.errors import EnvironmentFault, InputError
from vision_core.images.augmentation import StrongView
from vision_core.images.augmentation_settings import StrongViewSettings
from vision_core.randomness import key
from vision_core.training.loaders import EpochBatches, Parcel, batches, map_tensors, to_device


class Pair(NamedTuple):
    image: Tensor
    name: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    images: list[Tensor]
    names: tuple[str, ...] = ()


class Views:
    """Ten small images; an item is its strong view in that epoch."""

    def __init__(self) -> None:
        self.view = StrongView(StrongViewSettings())

    def __getitem__(self, place: tuple[int, int]) -> Tensor:
        image = np.random.default_rng(place[1]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        return torch.from_numpy(self.view(image, key("view", 0, *place)))

    def collate(self, items: list[Tensor]) -> Tensor:
        return torch.stack(items)


class Places:
    """Items that are their own place."""

    def __getitem__(self, place: tuple[int, int]) -> tuple[int, int]:
        return place

    def collate(self, items: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return items


class Faulty(Places):
    def __getitem__(self, place: tuple[int, int]) -> tuple[int, int]:
        if place[1] == 3:
            raise InputError(["'a.jpg': truncated.", "Make it again."])
        return place


class Buggy(Places):
    def __getitem__(self, place: tuple[int, int]) -> tuple[int, int]:
        raise RuntimeError("our bug")


class Deadly(Places):
    """Kills its worker at item 5, as often as there are marks to take from a folder."""

    def __init__(self, folder: Path, times: int) -> None:
        self.main = os.getpid()
        self.marks = [folder / str(number) for number in range(times)]
        for mark in self.marks:
            mark.touch()

    def __getitem__(self, place: tuple[int, int]) -> tuple[int, int]:
        left = [mark for mark in self.marks if mark.exists()]
        if place[1] == 5 and left and os.getpid() != self.main:
            left[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return place


ORDER = EpochBatches(num_items=10, batch_size=3, epochs=2, seed=0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch looks for dead workers when nothing came for five seconds; here, for a fifth of one."""
    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


def test_epoch_batches__each_epoch_is_a_new_permutation_with_its_partial_batch() -> None:
    steps = list(ORDER)
    assert [len(step) for step in steps] == [3, 3, 3, 1] * 2
    assert len(ORDER) == 8
    assert ORDER.steps_per_epoch == 4
    first, second = ([index for step in half for _, index in step] for half in (steps[:4], steps[4:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert {epoch for step in steps[4:] for epoch, _ in step} == {1}
    assert list(replace(ORDER, seed=1)) != steps


@pytest.mark.parametrize("start", range(10))
def test_epoch_batches__start_step_goes_on_where_it_stopped(start: int) -> None:
    assert list(replace(ORDER, start_step=start)) == list(ORDER)[start:]
    assert len(replace(ORDER, start_step=start)) == max(0, 8 - start)


def test_epoch_batches__processes_share_the_step_of_one_process() -> None:
    whole = list(replace(ORDER, batch_size=4))
    parts = [list(replace(ORDER, batch_size=2, rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == len(whole)
    for step, first, second in zip(whole, *parts, strict=True):
        assert Counter(step) == Counter(first + second)


def test_epoch_batches__no_items_no_steps() -> None:
    assert (list(replace(ORDER, num_items=0)), len(replace(ORDER, num_items=0))) == ([], 0)


def test_epoch_batches__not_shuffled_is_the_order_of_the_data_set() -> None:
    assert [index for step in replace(ORDER, epochs=1, shuffled=False) for _, index in step] == list(range(10))


def test_batches__number_of_workers_and_a_resume_change_nothing() -> None:
    expected = list(batches(Views(), ORDER))
    assert len(expected) == 8
    for workers in (1, 2):
        found = list(batches(Views(), ORDER, workers=workers))
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    resumed = list(batches(Views(), replace(ORDER, start_step=5), workers=2))
    assert all(torch.equal(one, other) for one, other in zip(expected[5:], resumed, strict=True))


def test_batches__global_random_state_is_not_drawn_from() -> None:
    before = torch.get_rng_state()
    list(batches(Places(), ORDER, workers=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches__fault_of_an_item_arrives_as_it_was_raised(workers: int) -> None:
    with pytest.raises(InputError) as caught:
        list(batches(Faulty(), ORDER, workers=workers))
    assert caught.value.problems == ("'a.jpg': truncated.", "Make it again.")
    assert type(caught.value) is InputError


def test_batches__a_bug_is_no_dead_worker() -> None:
    with pytest.raises(RuntimeError, match="our bug"):
        list(batches(Buggy(), ORDER, workers=1))


def test_batches__killed_worker_is_named_and_the_batches_are_the_same(
    impatient: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deadly = Deadly(tmp_path, times=1)
    with caplog.at_level(logging.WARNING, "domainsight"):
        assert list(batches(deadly, ORDER, workers=2)) == list(ORDER)
    assert not deadly.marks[0].exists()
    assert "restart 1 of 3" in caplog.text


def test_batches__workers_that_keep_dying_end_the_run(impatient: None, tmp_path: Path) -> None:
    deadly_step = next(step for step, places in enumerate(ORDER) if (0, 5) in places)
    # From that step on: a batch ahead of it may or may not be handed over before the worker is gone.
    with pytest.raises(EnvironmentFault, match=f"4 times, now at step {deadly_step}:"):
        list(batches(Deadly(tmp_path, times=4), replace(ORDER, start_step=deadly_step), workers=1))


def test_batches__dead_worker_does_not_interrupt_the_step_of_the_consumer(tmp_path: Path) -> None:
    reader = batches(Deadly(tmp_path, times=1), ORDER, workers=1)
    next(reader)
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL


def test_to_device__reaches_every_tensor_and_keeps_the_types() -> None:
    batch: dict[str, Any] = {
        "a": [Batch(images=[torch.ones(2)], names=("x",))],
        "b": Pair(torch.ones(1), "n"),
        "c": (1, None),
    }
    moved = to_device(batch, torch.device("meta"))
    assert moved["a"][0].images[0].is_meta
    assert moved["a"][0].names == ("x",)
    assert isinstance(moved["b"], Pair)
    assert moved["b"].image.is_meta
    assert moved["c"] == (1, None)


def test_parcel__pins_what_its_batch_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor + 1)  # the real one needs a GPU
    pinned = Parcel(content=Batch(images=[torch.ones(2)])).pin_memory().open()
    assert pinned.images[0].tolist() == [2, 2]


def test_map_tensors__text_stays_text() -> None:
    assert map_tensors(torch.neg, ["abc"]) == ["abc"]


@pytest.mark.timeout(120)
def test_batches__workers_start_beside_opencvs_threads() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (31, 31), 5)  # the pool of threads begins here
        assert len(list(batches(Places(), EpochBatches(num_items=4, batch_size=2), workers=1))) == 2
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)
