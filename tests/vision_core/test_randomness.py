import subprocess
import sys

import torch

from vision_core.randomness import key, seed_torch


def test_key__is_63_bit_and_the_same_in_every_process() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "from vision_core.randomness import key; print(key('view', 0, 1, 2))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(found.stdout) == key("view", 0, 1, 2)
    assert all(0 <= key(number) < 2**63 for number in range(200))


def test_key__every_part_its_type_and_the_order_count() -> None:
    parts = [("view", 0, 1), ("view", 1, 0), ("step", 0, 1), ("view", "0", 1), ("view", 0), ("view", 0, 1, 0)]
    assert len({key(*each) for each in parts}) == len(parts)


def test_key__neighbours_share_no_bits_in_particular() -> None:
    flips = [(key("order", 0, number) ^ key("order", 0, number + 1)).bit_count() for number in range(500)]
    assert 30 < sum(flips) / len(flips) < 33


def test_seed_torch__draws_as_torch_itself() -> None:
    torch.manual_seed(2**63 - 1)
    expected = torch.randn(5), torch.randperm(9)
    seed_torch(2**63 - 1)
    assert torch.equal(torch.randn(5), expected[0])
    assert torch.equal(torch.randperm(9), expected[1])


def test_seed_torch__leaves_nothing_waiting_for_a_gpu() -> None:
    before = len(torch.cuda._queued_calls)
    for seed in range(3):
        seed_torch(seed)
    assert len(torch.cuda._queued_calls) == before
