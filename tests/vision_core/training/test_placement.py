"""Which GPU a process takes, and how processes meet: told by the calls, since one machine without GPUs is enough."""

from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import distributed as torch_distributed
from torch._C._distributed_c10d import HashStore

from vision_core.errors import EnvironmentFault, UsageError
from vision_core.training import distributed
from vision_core.training.runtime import launch


class Calls:
    """What torch was told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def note(self, name: str, result: object = None) -> Any:  # noqa: ANN401 (stands for functions of torch)
        def called(*words: object, **named: object) -> object:
            self.told.append((name, (*words, named)))
            return result

        return called

    def of(self, name: str) -> list[Any]:
        return [words for told, words in self.told if told == name]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A machine with two GPUs, and processes that never meet."""
    calls, zeros = Calls(), torch.zeros
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", calls.note("set_device"))
    monkeypatch.setattr(torch, "zeros", lambda *size, device: zeros(*size))
    monkeypatch.setattr(distributed, "rendezvous", lambda _: iter([(HashStore(), 0, 2)]))
    monkeypatch.setattr(torch_distributed, "init_process_group", calls.note("init"))
    monkeypatch.setattr(torch_distributed, "new_group", calls.note("group", "hosts"))
    monkeypatch.setattr(distributed, "_of_group", [])
    monkeypatch.setattr(distributed, "_between_hosts", [])
    monkeypatch.setattr("vision_core.training.runtime.be_silent", lambda: None)
    return calls


def _as_process(monkeypatch: pytest.MonkeyPatch, rank: int, local_rank: int, count: int, local_count: int) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": local_count}
    for name, number in numbers.items():
        monkeypatch.setenv(name, str(number))


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(("rank", "local_rank"), [(0, 0), (1, 1), (2, 0), (3, 1)])  # two machines
def test_launch__each_process_takes_its_own_gpu_before_it_meets_the_others(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, device: str, rank: int, local_rank: int
) -> None:
    _as_process(monkeypatch, rank, local_rank, 4, 2)
    own = torch.device("cuda", local_rank)
    assert launch(device).device == own
    assert [name for name, _ in calls.told] == ["set_device", "init", "group"]
    assert calls.of("set_device") == [(own, {})]
    (backend, options), (group,) = calls.of("init")[0], calls.of("group")[0]
    assert (backend, options["device_id"]) == ("nccl", own)
    assert timedelta(minutes=1) <= options["timeout"] <= timedelta(minutes=30)
    # Process 0 evaluates for hours, and objects would all go through the first GPU: both between the hosts.
    assert (group["backend"], group["timeout"]) == ("gloo", timedelta(hours=12))
    assert distributed._hosts() == "hosts"
    distributed.leave()
    assert distributed._hosts() is None


def test_launch__processes_on_the_cpu_meet_by_gloo_alone(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_process(monkeypatch, 1, 1, 2, 2)
    assert launch("cpu").device == torch.device("cpu")
    assert [name for name, _ in calls.told] == ["init"]
    assert calls.of("init")[0][0] == "gloo"
    assert calls.of("init")[0][1]["device_id"] is None


def test_launch__one_process_works_on_the_gpu_that_was_named(calls: Calls) -> None:
    assert launch("cuda:1").device == torch.device("cuda:1")
    assert calls.of("set_device") == [(torch.device("cuda:1"), {})]
    assert launch("cuda").device == torch.device("cuda:0")


def test_launch__more_processes_than_gpus_are_refused(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_process(monkeypatch, 2, 2, 3, 3)
    with pytest.raises(EnvironmentFault, match=r"3 processes on this machine, and 2 GPUs\. .*--nproc-per-node 2"):
        launch("auto")


def test_launch__one_gpu_for_several_processes_is_refused(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_process(monkeypatch, 1, 1, 2, 2)
    with pytest.raises(UsageError, match=r"'cuda:0' is one GPU for 2 processes"):
        launch("cuda:0")
