"""Rows of a step that are spread over processes, as if one held them all. Alone, each gives back what it was given."""

import torch
from torch import Tensor

from vision_core.training import distributed as processes


def mean_row(rows: Tensor) -> Tensor:
    """The mean ``(1, n)`` over the rows ``(B, n)`` of all processes, however many each has; without a gradient."""
    rows = rows.detach()
    if processes.world_size() == 1:
        return rows.mean(dim=0, keepdim=True)
    counted = torch.cat([rows.double().sum(dim=0), rows.new_tensor([len(rows)], dtype=torch.float64)])
    summed = processes.total(counted)
    return (summed[:-1] / summed[-1]).to(rows.dtype)[None]


def own_rows(rows: Tensor, count: int) -> Tensor:
    """The ``count`` rows of this process among the gathered ``rows`` of all."""
    if processes.world_size() == 1:
        return rows
    counts = processes.gather(torch.tensor([count], device=rows.device)).tolist()
    start = sum(counts[: processes.rank()])
    return rows[start : start + count]
