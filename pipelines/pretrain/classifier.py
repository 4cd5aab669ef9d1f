"""The residual networks of the method, from scratch, by the names of the published experiments."""

from typing import Literal

import timm
from torch import nn

ResNetName = Literal["resnet10t", "resnet18", "resnet50"]


def resnet(name: ResNetName, num_classes: int) -> nn.Module:
    """A randomly initialised network; the last scale of every residual block starts at 0.

    ResNet-18 and -50 have torchvision's layout and entry names, ResNet-10t a stem of three 3 by 3 convolutions and
    shortcuts that pool.

    Args:
        name: Which one.
        num_classes: Outputs; 0 gives the features before the classifier, 512 wide for the first two.
    """
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, zero_init_last=True)
    return network
