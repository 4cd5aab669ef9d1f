"""Networks that turn tiles into features, built from settings and local weights; nothing is downloaded.

Tiles stay bytes until they are on the device. There they are resized (bilinear, antialiased, rounded to bytes, as
Pillow does it) and normalised. Normalisation is not folded into the first convolution: at the border, padding with
zeros would no longer be padding with the mean colour.
"""

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError
from torch.nn import functional

from vision_core.errors import ConfigError

Precision = Literal["auto", "off", "bf16"]
_MPP_TOLERANCE = 0.2
_CACHED_BYTES = 5 * 2**20  # of floats: 8 tiles of 224 px; a small network takes half the time that it does at 64
_NOT_TRACED = (TraceError, TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError, KeyError)

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class EncoderNetwork:
    """A network and what it expects.

    Attributes:
        name: As the settings have it.
        network: From normalised images ``(B, 3, H, W)`` to ``(B, D)``.
        weights: sha256 of the file that its weights came from.
        mean: Subtracted, per channel in the order of ``channels``, of values from 0 to 255; ImageNet's unless given.
        std: Divides, likewise.
        channels: Order of the channels.
        mpp: Microns per pixel of the tiles that it was trained on, where published.
    """

    name: str
    network: nn.Module
    weights: str
    mean: Colour = (123.675, 116.28, 103.53)
    std: Colour = (58.395, 57.12, 57.375)
    channels: Literal["rgb", "bgr"] = "rgb"
    mpp: float | None = None


class Encoder(nn.Module):
    """A frozen network with its preprocessing, from bytes to features.

    Args:
        built: The network and what it expects.
        input_px: Side to which tiles are resized.
        device: Where it computes.
        precision: ``bf16`` under autocast, ``off`` for float32; ``auto`` is bf16 where the processor multiplies it.

    Attributes:
        name: As the settings have it.
        dim: Features of a tile.
        mpp: Microns per pixel of the tiles that it was trained on, where published.

    Raises:
        ConfigError: The network cannot take tiles of that size.
    """

    def __init__(
        self, built: EncoderNetwork, input_px: int, device: torch.device | None = None, precision: Precision = "auto"
    ) -> None:
        super().__init__()
        self._device = device or torch.device("cpu")
        self.network = _without_norms(built.network.eval().requires_grad_(False))
        self._built, self._input_px = replace(built, network=self.network), input_px
        self.name, self.mpp = built.name, built.mpp
        self.precision = resolved(precision, self._device)
        self.network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean, self._std = (
            torch.tensor(each, device=self._device).repeat(input_px) for each in (built.mean, built.std)
        )
        self._places = threading.local()
        self.dim = self._probe()

    @property
    def identity(self) -> dict[str, Any]:
        """What tells whether two files of features are of one kind; it goes into each."""
        return {
            "name": self.name,
            "dim": self.dim,
            "weights": self._built.weights,
            "input_px": self._input_px,
            "resize": "bilinear, antialiased",
            "mean": list(self._built.mean),
            "std": list(self._built.std),
            "channels": self._built.channels,
            "precision": self.precision,
        }

    def train(self, mode: bool = True) -> "Encoder":
        """It is not trained: batch norms and dropout stay as at inference, whatever contains it."""
        return super().train(False)

    @torch.inference_mode()
    def encode(self, tiles: NDArray[Any] | Tensor) -> Tensor:
        """Features of tiles.

        Args:
            tiles: ``(B, H, W, 3)`` RGB bytes.

        Returns:
            ``(B, dim)`` float32, on the device.
        """
        batch = torch.as_tensor(tiles)
        if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
            raise ValueError(f"tiles: expected uint8 (B, H, W, 3), found {batch.dtype} {tuple(batch.shape)}")
        if not len(batch):
            return torch.zeros(0, self.dim, device=self._device)
        with self._autocast():
            parts = [self.network(self.prepare(part)) for part in batch.split(self._at_once(len(batch)))]
        return torch.cat(parts).float()

    @torch.inference_mode()
    def prepare(self, tiles: Tensor) -> Tensor:
        """``(B, H, W, 3)`` bytes to what the network sees: ``(B, 3, input_px, input_px)`` float32, channels last.

        The result lasts until this thread prepares the next tiles.
        """
        tiles = tiles.to(self._device, non_blocking=True)
        if self._built.channels == "bgr":
            tiles = tiles.flip(3)
        images = tiles.permute(0, 3, 1, 2)  # a view, channels last
        if images.shape[2:] != (self._input_px, self._input_px):
            images = _resized(images, self._input_px)
        rows = images.permute(0, 2, 3, 1).reshape(len(images), self._input_px, 3 * self._input_px)
        # Whole rows against rows of means take a third of the time of three channels against three numbers, and a place
        # that is kept another third: fresh memory is slower than the sums.
        floats = self._place(rows.shape).copy_(rows).sub_(self._mean).div_(self._std)
        return floats.view(*rows.shape[:2], self._input_px, 3).permute(0, 3, 1, 2)

    def notes(self, mpp: float) -> tuple[str, ...]:
        """What the person should know about tiles of ``mpp`` microns per pixel, each a sentence."""
        if self.mpp is None or abs(mpp / self.mpp - 1) <= _MPP_TOLERANCE:
            return ()
        return (
            f"Encoder '{self.name}' was trained on tiles of {self.mpp:g} microns per pixel; these have {mpp:.3g}. "
            "Set tiles.mpp, unless the other scale is meant.",
        )

    def _at_once(self, count: int) -> int:
        """Tiles of ``count`` that go through the network together: on a processor, those its cache has room for."""
        return max(1, _CACHED_BYTES // (3 * 4 * self._input_px**2)) if self._device.type == "cpu" else count

    def _place(self, shape: torch.Size) -> Tensor:
        kept: Tensor | None = getattr(self._places, "tensor", None)
        if kept is None or len(kept) < shape[0]:
            kept = self._places.tensor = torch.empty(shape, device=self._device)
        return kept[: shape[0]]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "off":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)

    def _probe(self) -> int:
        self.dim = 0
        tile = torch.zeros(1, self._input_px, self._input_px, 3, dtype=torch.uint8)
        try:
            features = self.encode(tile)
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise ConfigError(
                f"encoder.input_px: '{self.name}' cannot take tiles of {self._input_px} px ({reason}). "
                "Give the size that it was made for."
            ) from error
        if features.ndim != 2:
            raise ConfigError(
                f"encoder.name: '{self.name}' gives {tuple(features.shape)}, not one row a tile. Choose another."
            )
        return int(features.shape[1])


def resolved(precision: Precision, device: torch.device) -> Literal["off", "bf16"]:
    """``auto`` as this machine has it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "off"
    return "bf16" if has_cpu_bf16() else "off"


def has_cpu_bf16() -> bool:
    """Whether the processor multiplies bf16 itself; without, autocast only costs time."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(asked and asked())


def _resized(images: Tensor, side: int) -> Tensor:
    if images.device.type == "cpu":
        return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    # Other devices interpolate floats alone; rounded, they differ from bytes by one at most.
    floats = functional.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)
    return floats.round_().clamp_(0, 255)


def _without_norms(network: nn.Module) -> nn.Module:
    """The network with its batch norms folded into the convolutions before them: the same but for rounding, and faster.

    A network that cannot be traced stays as it is.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    try:
        return fuse(network)
    except _NOT_TRACED:
        return network
