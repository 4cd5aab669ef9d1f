"""Encoder of tiles: a frozen network with its preprocessing.

Tiles stay bytes until they are on the device. There they are resized (bilinear, antialiased, rounded to bytes, as
Pillow does it) and normalised. Normalisation is not folded into the first convolution, because zero padding at the
border would then no longer be padding with the mean colour.
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
_CACHED_BYTES = 5 * 2**20  # of floats: 8 tiles of 224 px; a small network takes half the time of 64 tiles at once
_NOT_TRACED = (TraceError, TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError, KeyError)

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class EncoderNetwork:
    """Network with the preprocessing that it expects.

    Attributes:
        name: Name in the settings.
        network: From normalised images ``(B, 3, H, W)`` to ``(B, D)``.
        weights: sha256 of its file of weights.
        mean: Mean per channel, in the order of ``channels``, of values from 0 to 255; ImageNet's by default.
        std: Standard deviation, likewise.
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
    """Frozen network with its preprocessing, from bytes to features.

    Args:
        built: The network and its preprocessing.
        input_px: Side to which tiles are resized.
        device: The CPU by default.
        precision: ``bf16`` under autocast, ``off`` for float32; ``auto`` is bf16 where the hardware multiplies it.

    Attributes:
        name: Name in the settings.
        dim: Number of features of a tile.
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
        self.precision = _resolved(precision, self._device)
        self.network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean, self._std = (
            torch.tensor(each, device=self._device).repeat(input_px) for each in (built.mean, built.std)
        )
        self._buffers_by_thread = threading.local()
        self.dim = self._probe()

    @property
    def identity(self) -> dict[str, Any]:
        """Return the facts, stored in each file of features, by which encoders are compared."""
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
        """Stay in evaluation mode, also as part of a module that is trained."""
        return super().train(False)

    @torch.inference_mode()
    def encode(self, tiles: NDArray[Any] | Tensor) -> Tensor:
        """Compute features of tiles.

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
        if self._device.type == "cuda" and batch.device.type == "cpu":
            batch = batch.pin_memory()  # from there the copy does not hold up the host
        with self._autocast(), self._tuned(len(batch)):
            parts = [self.network(self.prepare(part)) for part in batch.split(self._at_once(len(batch)))]
        return torch.cat(parts).float()

    @torch.inference_mode()
    def prepare(self, tiles: Tensor) -> Tensor:
        """Resize and normalise tiles ``(B, H, W, 3)`` of bytes.

        Returns:
            ``(B, 3, input_px, input_px)`` float32, channels last; valid until this thread prepares the next tiles.
        """
        tiles = tiles.to(self._device, non_blocking=True)
        if self._built.channels == "bgr":
            tiles = tiles.flip(3)
        images = tiles.permute(0, 3, 1, 2)  # a view, channels last
        if images.shape[2:] != (self._input_px, self._input_px):
            images = _resized(images, self._input_px)
        rows = images.permute(0, 2, 3, 1).reshape(len(images), self._input_px, 3 * self._input_px)
        # Arithmetic on whole rows takes a third of the time of arithmetic on three channels; reusing the buffer saves
        # another third, since fresh memory is slower than the arithmetic.
        floats = self._buffer(rows.shape).copy_(rows).sub_(self._mean).div_(self._std)
        return floats.view(*rows.shape[:2], self._input_px, 3).permute(0, 3, 1, 2)

    def notes(self, mpp: float) -> tuple[str, ...]:
        """Warn of tiles whose microns per pixel differ from those of training, a sentence each."""
        if self.mpp is None or abs(mpp / self.mpp - 1) <= _MPP_TOLERANCE:
            return ()
        return (
            f"Encoder '{self.name}' was trained on tiles of {self.mpp:g} microns per pixel; these have {mpp:.3g}. "
            "Set tiles.mpp, unless the other scale is meant.",
        )

    def _at_once(self, count: int) -> int:
        """Return how many of ``count`` tiles the network takes at once; on a CPU, as many as fit its cache."""
        return max(1, _CACHED_BYTES // (3 * 4 * self._input_px**2)) if self._device.type == "cpu" else count

    def _buffer(self, shape: torch.Size) -> Tensor:
        buffer: Tensor | None = getattr(self._buffers_by_thread, "tensor", None)
        if buffer is None or len(buffer) < shape[0]:
            buffer = self._buffers_by_thread.tensor = torch.empty(shape, device=self._device)
        return buffer[: shape[0]]

    def _tuned(self, count: int) -> AbstractContextManager[Any]:
        """Let cuDNN try its algorithms for a number of tiles that comes again, as all but the last batches do."""
        comes_again = count == getattr(self._buffers_by_thread, "count", None)
        self._buffers_by_thread.count = count
        if self._device.type != "cuda" or not comes_again or torch.are_deterministic_algorithms_enabled():
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, benchmark=True)

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


def has_cpu_bf16() -> bool:
    """Tell whether the CPU multiplies bf16 in hardware; otherwise autocast only costs time."""
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(is_supported and is_supported())


def _resolved(precision: Precision, device: torch.device) -> Literal["off", "bf16"]:
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "off"
    return "bf16" if has_cpu_bf16() else "off"


def _resized(images: Tensor, side: int) -> Tensor:
    if images.device.type == "cpu":
        return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    # Other devices interpolate floats alone; the rounded result differs by at most one from that of bytes.
    floats = functional.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)
    return floats.round_().clamp_(0, 255)


def _without_norms(network: nn.Module) -> nn.Module:
    """Fold batch norms into the convolutions before them: equal but for rounding, and faster.

    A network that cannot be traced is returned unchanged.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    try:
        return fuse(network)
    except _NOT_TRACED:
        return network
