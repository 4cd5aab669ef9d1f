"""Encoders without their batch norms, which are in the convolutions before them."""

import copy

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from vision_core.slides.encoders.encoder import Encoder, EncoderNetwork


def test_encoder__norms_are_folded_into_convolutions_and_answers_stay() -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).eval()
    network.fc = nn.Identity()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    encoder = Encoder(
        EncoderNetwork(name="made", network=copy.deepcopy(network), weights="random"), 64, precision="off"
    )
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.network.modules())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    with torch.inference_mode():
        expected = network(encoder.prepare(torch.from_numpy(pixels)))
    torch.testing.assert_close(encoder.encode(pixels), expected, rtol=1e-4, atol=1e-4)


class _Branching(nn.Module):
    """Cannot be traced: what it does hangs on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.norm(self.first(images))
        means: Tensor = (found if found.sum() > 0 else -found).mean(dim=(2, 3))
        return means


def test_encoder__a_network_that_cannot_be_traced_is_used_as_it_is() -> None:
    encoder = Encoder(EncoderNetwork(name="made", network=_Branching(), weights="random"), 64, precision="off")
    assert isinstance(encoder.network, _Branching)
    assert encoder.encode(np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, 4)
