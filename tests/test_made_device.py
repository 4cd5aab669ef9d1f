"""The made device is as strict as a GPU, and computes what the CPU computes."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.made_device import MadeDevice, made_device

WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda each: each.sum().item(),
    "float": lambda each: float(each.sum()),
    "bool": lambda each: bool(each.any()),
    "if": lambda each: 1 if each.sum() > 0 else 0,
    "tolist": lambda each: each.tolist(),
    "cpu": lambda each: each.cpu(),
    "nonzero": lambda each: each.nonzero(),
    "mask": lambda each: each[each > 0],
    "masked_select": lambda each: each.masked_select(each > 0),
    "unique": lambda each: each.unique(),
    "equal": lambda each: torch.equal(each, each + 0),
}


@pytest.fixture
def device() -> Iterator[MadeDevice]:
    with made_device() as made:
        yield made


@pytest.mark.parametrize("name", WAITS)
def test_made_device__counts_what_a_host_waits_for(name: str, device: MadeDevice) -> None:
    tensor = torch.ones(3, device=device.device)
    assert device.total == 0
    WAITS[name](tensor)
    assert device.total == 1
    assert "test_made_device.py:" in next(iter(device.places))


def test_made_device__refuses_what_meets_the_cpu(device: MadeDevice) -> None:
    made, there = torch.ones(3, device=device.device), torch.ones(3)
    meetings: tuple[Callable[[], Tensor], ...] = (
        lambda: made + there,
        lambda: there @ made,
        lambda: torch.cat([made, there]),
        lambda: made.add_(there),
    )
    for meet in meetings:
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device, found made:0 and cpu"):
            meet()
    assert (made * torch.tensor(2.0)).tolist() == [2, 2, 2]  # a number may
    assert made[torch.tensor([0])].tolist() == [1]  # so may indices


def test_made_device__has_no_numpy(device: MadeDevice) -> None:
    with pytest.raises((TypeError, RuntimeError)):
        torch.ones(3, device=device.device).numpy()


def test_made_device__copies_from_the_host_are_counted_unless_they_do_not_block(device: MadeDevice) -> None:
    torch.ones(3).to(device.device, non_blocking=True)
    assert device.uploads.total() == 0
    torch.ones(3).to(device.device)
    torch.tensor([1.0, 2.0], device=device.device)
    assert device.uploads.total() == 2


def test_made_device__trains_as_the_cpu_does(device: MadeDevice) -> None:
    def trained(where: torch.device) -> nn.Module:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 1)).to(where)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        for _ in range(3):
            module(torch.randn(6, 4, device=where)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return module

    expected, made = trained(torch.device("cpu")), trained(device.device)
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    for name, tensor in expected.state_dict().items():
        assert made.state_dict()[name].device == device.device
        assert torch.equal(saved[name], tensor)
