import torch

from vision_core.seeding import seed_torch


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
