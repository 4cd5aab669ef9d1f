"""The uniform mean of the last checkpoints, which is what leaves a stage."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def average_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of every floating entry; integer entries, which are counters, from the last of ``states``.

    Raises:
        KeyError: The states have different entries.
    """
    last = states[-1]
    for state in states:
        differing = sorted(state.keys() ^ last.keys())
        if differing:
            raise KeyError(f"Weights to average differ in {len(differing)} entries, first '{differing[0]}'.")
    return {name: _mean([state[name] for state in states]) for name in last}


def _mean(entries: Sequence[Tensor]) -> Tensor:
    last = entries[-1]
    if not last.is_floating_point():
        return last.clone()
    return torch.stack([entry.double() for entry in entries]).mean(dim=0).to(last.dtype)
