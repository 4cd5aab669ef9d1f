"""The two images of four cells and three classes on which the specification works out its numbers (N1 to N3)."""

import torch
from torch import Tensor

from pipelines.pretrain.noise_mask.beta import BetaCells

LOG_ALPHA = [[0.0, 0.5, -0.3, 1.0], [0.2, -0.1, 0.7, 0.4]]
LOG_BETA = [[0.3, 0.0, 0.6, -0.2], [-0.4, 0.8, 0.1, 0.5]]
CELLS = [[0.25, 0.60, 0.10, 0.85], [0.40, 0.33, 0.72, 0.51]]
LOGITS = [[1.0, 0, -1], [0.5, 2, 0]]
TARGETS = [2, 1]


def leaf(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def beta_cells() -> BetaCells:
    return BetaCells(log_alpha=leaf(LOG_ALPHA), log_beta=leaf(LOG_BETA))


def sampled() -> Tensor:
    return torch.tensor(CELLS, dtype=torch.float64)


def close(actual: Tensor, expected: float | list[float] | list[list[float]]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=actual.dtype), atol=2e-6, rtol=0)
