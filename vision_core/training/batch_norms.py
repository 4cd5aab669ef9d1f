"""Statistics of batch normalisation: freeze, share between processes, re-estimate, check.

``torch.optim.swa_utils.update_bn`` is not used: it puts the whole model into training mode, which switches dropout on.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vision_core.training import distributed

# Of the published weights that users report, the worst channel has 56,296; trained networks stay below hundreds.
_EXTREME_VARIANCE = 1e4
_VARIANCE = "running_var"
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def freeze_norms(module: nn.Module) -> None:
    """Freeze the running statistics until ``train`` is called again."""
    for norm in _norms(module):
        norm.eval()


def has_moving_norms(module: nn.Module) -> bool:
    """Tell whether any norm computes batch statistics."""
    return any(norm.training for norm in _norms(module))


def synchronised(module: ModuleT, device: torch.device) -> ModuleT:
    """Convert norms to normalise over all processes; torch supports it on GPUs alone."""
    if distributed.world_size() == 1 or device.type != "cuda":
        return module
    from timm import layers  # torch's own would lose the activation that timm keeps in some norms

    return cast(ModuleT, layers.convert_sync_batchnorm(module))  # type: ignore[attr-defined, no-untyped-call]


@torch.no_grad()
def share_statistics(module: nn.Module) -> None:
    """Average the running statistics over all processes."""
    held = [each for norm in _norms(module) for each in (norm.running_mean, norm.running_var) if each is not None]
    if distributed.world_size() == 1 or not held:
        return
    flat = torch.cat([each.flatten() for each in held])
    shared = (distributed.total(flat) / distributed.world_size()).split([each.numel() for each in held])
    for each, mean in zip(held, shared, strict=True):
        each.copy_(mean.view_as(each))


@torch.no_grad()
def reestimate_norms(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Re-estimate all running statistics over ``batches`` of images ``(B, C, H, W)``.

    They become the mean over batches of equal weight; all other layers compute as in inference.

    Returns:
        Number of batches.
    """
    norms = list(_norms(module))
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    count = 0
    for images in batches:
        module(images)
        count += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()
    return count


def extreme_statistics(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Find running variances beyond 10,000: the largest of each layer by entry name."""
    found = {name: float(each.max()) for name, each in tensors.items() if name.endswith(_VARIANCE) and each.numel()}
    return {name: largest for name, largest in found.items() if largest > _EXTREME_VARIANCE}


def _norms(module: nn.Module) -> Iterator[_BatchNorm]:
    return (each for each in module.modules() if isinstance(each, _BatchNorm))
