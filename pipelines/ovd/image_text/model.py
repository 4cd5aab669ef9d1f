"""Interface of image–text models: what embeds crops and sentences into one space."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

_CHUNK = 256  # rows at a time, which bounds memory


class TextModel(Protocol):
    """What embeds sentences: an ``ImageTextModel``, or a stand-in with a table."""

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings."""

    def fingerprint(self) -> str:
        """Return a hash of the name and the weights: part of every key under which embeddings are kept."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences as ``(N, D)``, float32 of length 1."""

    def read_names(self, names: Sequence[str]) -> Tensor | None:
        """Embed plain names as ``(N, E)``, length 1, where strange ones stand apart; None: in no other space."""


class ImageTextModel(nn.Module, ABC):
    """Image–text model; prompts, crops and temperatures lie outside, in functions that all models share.

    Attributes:
        embed_dim: Width ``D`` of the embeddings.
        image_size: Side of the square crops in pixels.
        pixel_mean: Of RGB values in 0 to 1.
        pixel_std: Of RGB values in 0 to 1.
    """

    embed_dim: int
    image_size: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of the name and the weights: part of every key under which embeddings are kept."""

    @abstractmethod
    def embed_images(self, images: Tensor) -> Tensor:
        """Embed normalised images ``(N, 3, S, S)`` float32 as ``(N, D)``, of any length."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed a few sentences as ``(N, D)``, of any length."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @torch.no_grad()
    def encode_images(self, crops: Tensor) -> Tensor:
        """Embed RGB crops ``(N, 3, S, S)`` uint8 in one batch as ``(N, D)``, float32 of length 1."""
        if not len(crops):
            return torch.zeros(0, self.embed_dim, device=self.device)
        return functional.normalize(self.embed_images(self.normalised(crops)).float(), dim=1)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences, a chunk after the other, as ``(N, D)``, float32 of length 1."""
        chunks = [self.embed_texts(texts[first : first + _CHUNK]).float() for first in range(0, len(texts), _CHUNK)]
        if not chunks:
            return torch.zeros(0, self.embed_dim, device=self.device)
        return functional.normalize(torch.cat(chunks), dim=1)

    def read_names(self, names: Sequence[str]) -> Tensor | None:
        """Embed plain names in a space other than that of ``encode_texts``; None, since there is no other."""
        return None

    def normalised(self, crops: Tensor) -> Tensor:
        """Normalise crops ``(N, 3, S, S)`` uint8 as the model was trained: float32 on its device."""
        images = crops.to(self.device).float() / 255
        mean, std = (images.new_tensor(each).view(1, 3, 1, 1) for each in (self.pixel_mean, self.pixel_std))
        return (images - mean) / std
