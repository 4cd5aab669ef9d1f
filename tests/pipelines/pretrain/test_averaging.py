"""Averaging of checkpoints: check N9."""

import pytest
import torch
from torch import nn

from pipelines.pretrain.averaging import average_weights


def test_average__floats_are_averaged_and_counters_come_from_the_last() -> None:
    states = [
        {"weight": torch.tensor(values), "num_batches_tracked": torch.tensor(count)}
        for values, count in (([1.0, 2], 10), ([1.5, 1], 20), ([2.0, 0], 31))
    ]
    averaged = average_weights(states)
    assert averaged["weight"].tolist() == [1.5, 1.0]
    assert averaged["num_batches_tracked"].item() == 31
    assert averaged["num_batches_tracked"].dtype == torch.int64


def test_average__loads_into_the_network_and_shares_no_memory() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).half()
    averaged = average_weights([network.state_dict()])
    network.load_state_dict(averaged, strict=True)
    assert averaged["0.weight"].dtype == torch.float16
    assert all(entry.data_ptr() != averaged[name].data_ptr() for name, entry in network.state_dict().items())


def test_average__different_entries_are_refused() -> None:
    with pytest.raises(KeyError, match="1 entries, first 'b'"):
        average_weights([{"a": torch.zeros(1), "b": torch.zeros(1)}, {"a": torch.zeros(1)}])
