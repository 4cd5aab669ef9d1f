"""The made networks and numbers of the specification's checks."""

import math
from typing import Literal

import torch
from torch import Tensor

from pipelines.wsi.models.abmil import ABMIL


def wave(*shape: int, a: float, b: float, c: float = 1.0) -> Tensor:
    """``c sin(a k + b)`` over the row-major index ``k``, in float64."""
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    return (c * torch.sin(a * index + b)).reshape(shape)


def assert_near(found: Tensor, expected: object, tolerance: float = 1e-6) -> None:
    """Equal to numbers printed with six places."""
    torch.testing.assert_close(found.detach(), torch.tensor(expected).to(found), atol=tolerance, rtol=0)


BAG = wave(4, 3, a=0.9, b=0.2)


def small_abmil(
    activation: Literal["relu", "gelu"] = "gelu", *, attention: Literal["relu", "tanh"] = "relu", gated: bool = False
) -> ABMIL:
    """Check C5's network: 3 features, 5 embedded, 4 hidden, 2 classes, no dropout."""
    network = ABMIL(
        in_dim=3,
        num_classes=2,
        embed_dim=5,
        activation=activation,
        dropout=0.0,
        attention_dim=4,
        gated=gated,
        attention_activation=attention,
    ).double()
    state = {
        "embedding.linear.weight": wave(5, 3, a=0.37, b=0.1, c=0.8),
        "embedding.linear.bias": wave(5, a=0.5, b=0.3, c=0.2),
        "attention.hidden.weight": wave(4, 5, a=0.61, b=0.4),
        "attention.score.weight": wave(1, 4, a=1.1, b=0.2),
        "classifier.weight": wave(2, 5, a=0.43, b=0.7),
        "classifier.bias": wave(2, a=0.8, b=0.1, c=0.3),
    }
    if gated:
        state["attention.gate.weight"] = wave(4, 5, a=0.23, b=0.9)
    network.load_state_dict(state)
    return network
