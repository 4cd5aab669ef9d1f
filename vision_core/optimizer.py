"""The optimizer of a learner: what trains, and what decays."""

from typing import Any

import torch
from torch import nn

from vision_core.settings import Optim

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d)


def make_optimizer(learner: nn.Module, optim: Optim) -> torch.optim.Optimizer | None:
    """The optimizer over everything that trains; none when nothing does. Normalisation layers take no decay."""
    plain: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for module in learner.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                (undecayed if isinstance(module, _NORMS) else plain).append(parameter)
    groups: list[dict[str, Any]] = [{"params": plain}, {"params": undecayed, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if not groups:
        return None
    if optim.name == "adamw":
        return torch.optim.AdamW(groups, lr=optim.lr, weight_decay=optim.weight_decay)
    return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)
