"""The running bases against check N4."""

import pytest
import torch

from pipelines.pretrain.bases import RunningBases
from pipelines.pretrain.config import Bases
from pipelines.pretrain.noise_mask.beta import BetaCells
from tests.pipelines.pretrain.example import close, leaf

START = [[0.2, 0.8, 0.5, 0.1]]
HEADS = [[1.0, -1, 0.5, 2], [0.0, 1, -0.5, 1]]


def _bases() -> RunningBases:
    bases = RunningBases(4, Bases()).double()
    for base in bases.buffers():
        base.copy_(torch.tensor(START, dtype=torch.float64))
    return bases


def _heads() -> BetaCells:
    return BetaCells(log_alpha=leaf(HEADS), log_beta=leaf([row[::-1] for row in HEADS]))


def test_forward__nine_tenths_of_the_base() -> None:
    cells = _bases()(_heads())
    close(cells.log_alpha, [[0.28, 0.62, 0.50, 0.29], [0.18, 0.82, 0.40, 0.19]])
    close(cells.log_beta[:, 0], [0.38, 0.28])


def test_forward__a_tenth_of_the_gradient_and_only_to_the_heads() -> None:
    bases, heads = _bases(), _heads()
    cells = bases(heads)
    bases.update(heads)  # in place, before the backward pass
    (cells.log_alpha.sum() + cells.log_beta.sum()).backward()
    assert heads.log_alpha.grad is not None
    close(heads.log_alpha.grad, [[0.1] * 4] * 2)
    assert not bases.log_alpha.requires_grad


def test_update__one_step_and_a_hundred() -> None:
    bases, heads = _bases(), _heads()
    bases.update(heads)
    close(bases.log_alpha, [[0.203, 0.792, 0.495, 0.114]])
    for _ in range(99):
        bases.update(heads)
    close(bases.log_alpha, [[0.390190, 0.292826, 0.183016, 0.987555]])


def test_update__means_of_two_processes_move_as_their_rows_together() -> None:
    together, apart, heads = _bases(), _bases(), _heads()
    together.update(heads)
    halves = [BetaCells(log_alpha=heads.log_alpha[[i]], log_beta=heads.log_beta[[i]]) for i in range(2)]
    apart.update(
        BetaCells(
            log_alpha=torch.cat([half.log_alpha.mean(dim=0, keepdim=True) for half in halves]),
            log_beta=torch.cat([half.log_beta.mean(dim=0, keepdim=True) for half in halves]),
        )
    )
    assert torch.equal(together.log_beta, apart.log_beta)


def test_start__uniform_and_in_the_checkpoint() -> None:
    bases = RunningBases(1000, Bases())
    assert 0 <= bases.log_alpha.min() < 0.05
    assert 0.95 < bases.log_alpha.max() < 1
    assert not torch.equal(bases.log_alpha, bases.log_beta)
    assert bases.state_dict().keys() == {"log_alpha", "log_beta"}
    assert bases.current().log_alpha.shape == (1, 1000)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_forward__half_precision_heads_give_single_precision_concentrations(dtype: torch.dtype) -> None:
    bases = RunningBases(4, Bases())
    heads = BetaCells(log_alpha=torch.ones(2, 4, dtype=dtype), log_beta=torch.ones(2, 4, dtype=dtype))
    bases.update(heads)
    assert bases(heads).log_alpha.dtype == torch.float32
