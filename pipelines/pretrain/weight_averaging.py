"""Uniform mean of the weights after the last epochs, which a stage delivers."""

import copy

import torch
from torch import Tensor, nn


class RunningMean(nn.Module):
    """Mean of a network's weights after each of its last epochs.

    Sums in double precision and their count are buffers: a checkpoint holds them, and a resumed run has the same bits.

    Args:
        network: Network to average; not kept.
        last_epochs: Number of epochs to average.
        epochs: Epochs of the whole run.
    """

    def __init__(self, network: nn.Module, last_epochs: int, epochs: int) -> None:
        super().__init__()
        self.last_epochs = last_epochs
        self.first_epoch = epochs - last_epochs + 1
        self.total = copy.deepcopy(network).double().requires_grad_(False)
        for entry in self.total.state_dict(keep_vars=True).values():
            if entry.is_floating_point():
                entry.zero_()
        self.count: Tensor
        self.register_buffer("count", torch.tensor(0))

    @torch.no_grad()
    def after_epoch(self, network: nn.Module, epoch: int) -> None:
        """Add the weights of ``network`` if ``epoch``, counted from 1, is among the last."""
        if epoch < self.first_epoch:
            return
        theirs = network.state_dict()
        for name, entry in self.total.state_dict(keep_vars=True).items():
            if entry.is_floating_point():
                entry.add_(theirs[name].double())
            else:
                entry.copy_(theirs[name])
        self.count += 1

    def incomplete_warning(self) -> str:
        """Warn that the run was too short for the mean; empty if the mean is complete."""
        count = int(self.count)
        if count >= self.last_epochs:
            return ""
        delivered = f"the mean of '{count}'" if count else "the last weights, without a mean"
        return (
            f"warning: averaging.last_epochs is '{self.last_epochs}', but the run was too short: it delivers "
            f"{delivered}. Train for more epochs, without train.max_steps."
        )

    def mean(self, network: nn.Module) -> nn.Module:
        """Copy ``network`` with the mean weights, or with its own if no epoch was added yet."""
        averaged = copy.deepcopy(network)
        if int(self.count):
            own = averaged.state_dict()
            averaged.load_state_dict(
                {
                    name: (entry / self.count).to(own[name].dtype) if entry.is_floating_point() else entry
                    for name, entry in self.total.state_dict().items()
                }
            )
        return averaged
