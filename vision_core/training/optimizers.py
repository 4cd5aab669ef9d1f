"""Optimizers of a learner: trained parameters, weight decay, learning rate."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vision_core.config.schema import Optim

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Part of a learner with an optimizer of its own.

    Attributes:
        name: Name in logs and checkpoints; empty where there is only one part.
        module: Module with the trained parameters.
        optim: Settings of the optimizer.
    """

    name: str = ""
    module: nn.Module
    optim: Optim


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Optimizer and the part that it trains."""

    trained: Trained
    torch: torch.optim.Optimizer

    def has_gradients(self) -> bool:
        """Tell whether any parameter has a gradient."""
        return any(parameter.grad is not None for parameter in self.trained.module.parameters())

    def restore(self, state: dict[str, Any]) -> None:
        """Load the state of a checkpoint; the settings stay those of this run."""
        settings = [
            {name: value for name, value in each.items() if name != "params"} for each in self.torch.param_groups
        ]
        self.torch.load_state_dict(state)
        for group, own in zip(self.torch.param_groups, settings, strict=True):
            group.update(own)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next update."""
        for group in self.torch.param_groups:
            group["lr"] = rate


def make_optimizers(parts: Iterable[Trained]) -> list[Optimizer]:
    """Make an optimizer for each part with trainable parameters."""
    found = ((part, make_optimizer(part.module, part.optim)) for part in parts)
    return [Optimizer(trained=part, torch=optimizer) for part, optimizer in found if optimizer]


def make_optimizer(module: nn.Module, optim: Optim) -> torch.optim.Optimizer | None:
    """Make the optimizer of all trainable parameters; None without any.

    Normalisation layers take no weight decay unless ``optim.decay_norms``.
    """
    plain: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            if parameter.requires_grad:
                is_spared = isinstance(part, _NORMS) and not optim.decay_norms
                (undecayed if is_spared else plain).append(parameter)
    groups: list[dict[str, Any]] = [{"params": plain}, {"params": undecayed, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if not groups:
        return None
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)
    kind = torch.optim.Adam if optim.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=optim.lr, weight_decay=optim.weight_decay)
