"""The two signs of a collapse, and what is none."""

import pytest
import torch

from pipelines.sfod.methods.collapse import describe_collapse


@pytest.mark.parametrize(
    ("first", "now", "told"),
    [
        ([100, 0], [10, 0], "fell from 100 in the first epoch to 10"),
        ([100, 0], [11, 0], ""),
        ([0, 0], [0, 0], ""),
        ([50, 50], [400, 0], "all 400 pseudo labels are of one class, of 2 in the first epoch"),
        ([95, 5], [400, 0], ""),  # it was nearly one class from the start
        ([50, 50], [399, 1], ""),
        ([50], [400], ""),
    ],
)
def test_describe_collapse(first: list[int], now: list[int], told: str) -> None:
    found = describe_collapse(torch.tensor(first), torch.tensor(now))
    assert told in found
    assert bool(found) == bool(told)
