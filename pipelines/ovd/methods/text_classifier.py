"""Classifier of regions whose class weights are embeddings of the classes' names.

Source: MarvelOVD (arXiv 2407.21465) and the behaviour of the program released with it. Symbols: ``x`` features of a
region, ``W_e`` and ``b_e`` the projection, ``e = W_e x + b_e``, ``T`` the class matrix with background last.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

_INITIAL_STD = 0.01
_UNIT_TOLERANCE = 1e-3


class TextClassifier(nn.Module):
    """Linear projection, compared with unit embeddings of names and one of background.

    As released, ``logits = e T^T``: no normalisation of ``e``, no temperature, no bias; the norm of ``e`` takes the
    part of a temperature. With ``normalise`` the logits are cosines over a temperature, ``e t / (|e| temperature)``.

    The class matrix is a buffer, so that another vocabulary needs no new layer and no optimizer loses one.

    Args:
        in_features: Width of ``x``.
        embeddings: ``(K, D)``, a unit row per class.
        background: zero: its logit is exactly 0. learned: a trained row, zero at the start.
        normalise: Compare directions alone.
        temperature: Divides the cosines; without ``normalise`` it is not used.

    Raises:
        ValueError: Rows are not of length 1, or the temperature is not positive.
    """

    def __init__(
        self,
        in_features: int,
        embeddings: Tensor,
        *,
        background: Literal["zero", "learned"] = "zero",
        normalise: bool = False,
        temperature: float = 0.01,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature is '{temperature:g}': expected a positive number")
        self.normalise = normalise
        self.temperature = temperature
        self.projection = nn.Linear(in_features, embeddings.shape[1])
        nn.init.normal_(self.projection.weight, std=_INITIAL_STD)
        nn.init.zeros_(self.projection.bias)
        learned = nn.Parameter(torch.zeros(embeddings.shape[1])) if background == "learned" else None
        self.register_parameter("background", learned)
        self.background: nn.Parameter | None
        self.register_buffer("embeddings", embeddings.new_zeros(0, embeddings.shape[1]))
        self.embeddings: Tensor
        self.set_class_embeddings(embeddings)

    @property
    def num_classes(self) -> int:
        """Number of foreground classes, which is also the index of background."""
        return len(self.embeddings)

    def class_matrix(self) -> Tensor:
        """Return ``T``, ``(K + 1, D)`` float32 with background last."""
        background = self.embeddings.new_zeros(self.embeddings.shape[1]) if self.background is None else self.background
        return torch.cat([self.embeddings, background[None]])

    def set_class_embeddings(self, embeddings: Tensor) -> None:
        """Replace the vocabulary by another, of any number of classes; nothing that is trained changes.

        Args:
            embeddings: ``(K, D)``, a unit row per class.

        Raises:
            ValueError: Rows are not of length 1, or of another width.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embeddings.shape[1]:
            raise ValueError(f"embeddings have shape {tuple(embeddings.shape)}, not (K, {self.embeddings.shape[1]})")
        norms = embeddings.float().norm(dim=1)
        if not torch.allclose(norms, torch.ones_like(norms), atol=_UNIT_TOLERANCE, rtol=0):
            raise ValueError("embeddings are not of length 1: normalise them first")
        self.embeddings = embeddings.detach().to(self.embeddings.device, torch.float32).clone()

    def project(self, features: Tensor) -> Tensor:
        """Compute the embeddings ``e`` ``(R, D)`` of regions ``(R, in_features)``, float32."""
        return self.projection(features).float()  # type: ignore[no-any-return]

    def compare(self, projected: Tensor) -> Tensor:
        """Compute logits ``(R, K + 1)`` of embeddings ``e`` ``(R, D)``, background last."""
        if self.normalise:
            projected = functional.normalize(projected, dim=1) / self.temperature
        return projected @ self.class_matrix().T

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits ``(R, K + 1)`` of regions ``(R, in_features)``, background last."""
        return self.compare(self.project(features))
