"""Mixup and cutmix of training batches by torchvision, and the version of random draws in checkpoints.

Sources: Zhang et al., "mixup", 2018; Yun et al., "CutMix", 2019. An image's partner is its neighbour in the batch.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.pretrain.config import Mixing, PretrainConfig
from vision_core.errors import CheckpointError
from vision_core.randomness import seeded

_DRAWS = 2  # version of the draws of mixup, cutmix and erasing; 1 was before torchvision drew them


@torch.compiler.disable  # type: ignore[untyped-decorator]  # each share would be compiled anew
def mix(images: Tensor, targets: Tensor, settings: Mixing, seed: int) -> tuple[Tensor, Tensor]:
    """Mix pairs of a batch by mixup or cutmix, by one of them at even odds if both are on.

    Args:
        images: ``(B, 3, H, W)``.
        targets: Probabilities ``(B, classes)``.
        settings: Which methods, and how strong.
        seed: All draws follow from it.
    """
    from torchvision.transforms import v2

    methods = [
        method(alpha=alpha) for method, alpha in ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix)) if alpha
    ]
    if not methods:
        return images, targets
    with seeded(seed):
        images, targets = v2.RandomChoice(methods)(images, targets)
    return images, targets


def record_draws(learner: nn.Module, config: PretrainConfig) -> None:
    """Store the version of the draws in the learner, where a setting uses them.

    Its checkpoints hold the version; one with another version raises ``CheckpointError``, since a resumed run would not
    have the same bits.
    """
    settings = {
        "mixing.mixup": config.mixing.mixup,
        "mixing.cutmix": config.mixing.cutmix,
        "data.augment.erasing": config.data.augment.erasing,
    }
    used = [f"{name}={value:g}" for name, value in settings.items() if value]
    if not used:
        return
    learner.register_buffer("draws", torch.tensor(_DRAWS))

    def refuse(_module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:  # noqa: ANN401
        if int(state.get(f"{prefix}draws", torch.tensor(1))) != _DRAWS:
            raise CheckpointError(
                f"The checkpoint was written with '{', '.join(used)}' by a version whose random draws were others. "
                "Go on with that version, or train anew with --overwrite."
            )

    learner.register_load_state_dict_pre_hook(refuse)
