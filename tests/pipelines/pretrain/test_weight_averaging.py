"""The mean of the last epochs: check N9, counters, and what a checkpoint carries."""

import copy

import torch
from torch import nn

from pipelines.pretrain.weight_averaging import RunningMean

HISTORY = [([9.0, 9], 5), ([1.0, 2], 10), ([1.5, 1], 20), ([2.0, 0], 31)]


def network(values: list[float], count: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(values))
        norm.num_batches_tracked.fill_(count)  # type: ignore[union-attr]
    return norm


def averaged(last_epochs: int) -> RunningMean:
    mean = RunningMean(network(*HISTORY[0]), last_epochs, len(HISTORY))
    for epoch, state in enumerate(HISTORY, start=1):
        mean.after_epoch(network(*state), epoch)
    return mean


def test_mean__of_the_last_three_epochs_with_the_counter_of_the_last() -> None:
    found = averaged(3).mean(network(*HISTORY[-1])).state_dict()
    assert found["weight"].tolist() == [1.5, 1.0]
    assert found["num_batches_tracked"].item() == 31
    assert found["num_batches_tracked"].dtype == torch.int64
    assert found["weight"].dtype == torch.float32


def test_mean__of_one_epoch_is_that_epoch() -> None:
    found = averaged(1).mean(network(*HISTORY[0])).state_dict()
    assert found["weight"].tolist() == HISTORY[-1][0]


def test_mean__before_the_first_of_them_is_the_network_itself() -> None:
    mean, now = RunningMean(network(*HISTORY[0]), 1, 9), network(*HISTORY[1])
    mean.after_epoch(now, 1)
    found = mean.mean(now)
    assert found is not now
    assert found.state_dict()["weight"].tolist() == HISTORY[1][0]


def test_mean__goes_on_from_a_checkpoint_with_the_same_bits() -> None:
    torch.manual_seed(0)
    states = [nn.Linear(3, 3) for _ in range(3)]
    whole = RunningMean(states[0], 3, 3)
    stopped = copy.deepcopy(whole)
    for epoch, state in enumerate(states, start=1):
        whole.after_epoch(state, epoch)
    stopped.after_epoch(states[0], 1)
    resumed = RunningMean(states[2], 3, 3)
    resumed.load_state_dict(stopped.state_dict(), strict=True)
    for epoch in (2, 3):
        resumed.after_epoch(states[epoch - 1], epoch)
    ours, theirs = resumed.mean(states[0]).state_dict(), whole.mean(states[0]).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_mean__does_not_train_and_the_network_stays_as_it_is() -> None:
    trained = nn.Linear(2, 2)
    mean = RunningMean(trained, 1, 1)
    before = copy.deepcopy(trained.state_dict())
    mean.after_epoch(trained, 1)
    mean.mean(trained)
    assert not any(parameter.requires_grad for parameter in mean.parameters())
    assert all(torch.equal(before[name], each) for name, each in trained.state_dict().items())


def test_incomplete_warning__says_how_many_epochs_the_mean_lacks() -> None:
    assert averaged(3).incomplete_warning() == ""
    assert (
        "last_epochs is '5', but the run was too short: it delivers the mean of '4'" in averaged(5).incomplete_warning()
    )
    none = RunningMean(network(*HISTORY[0]), last_epochs=3, epochs=90)
    assert "it delivers the last weights, without a mean" in none.incomplete_warning()
