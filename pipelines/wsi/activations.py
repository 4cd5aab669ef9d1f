"""Activations by name."""

from torch import nn


def activation(name: str) -> nn.Module:
    """The activation ``relu``, ``gelu`` or ``tanh``.

    ReLU works in place: here its input is always fresh from a linear layer, which does not need it again.
    """
    if name == "relu":
        return nn.ReLU(inplace=True)
    return nn.GELU() if name == "gelu" else nn.Tanh()
