"""Bundles of screens and segmenters, each with a golden pair of a frame's bytes and raw outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from pipelines.ultrasound.config import LEAST_SIDE, ScreenNetwork, UltrasoundConfig
from pipelines.ultrasound.data.frames import Grey
from pipelines.ultrasound.data.views import fitted, screen_view, segmenter_view
from pipelines.ultrasound.screening.screen import Screen, fold_norms
from vision_core.backbones.settings import Preprocessing
from vision_core.bundles import bundle
from vision_core.bundles.bundle import Golden, Tensors
from vision_core.bundles.card import Card, refuse_unapplied
from vision_core.errors import CheckpointError, InputError
from vision_core.randomness import key
from vision_core.segmentation.networks import ResidualUNet, spread_of
from vision_core.segmentation.settings import Segmenter

TASK = "ultrasound"
GOLDEN_PIXELS = "pixels"
Network = Screen | ResidualUNet
Floats = NDArray[np.float32]
_GOLDEN_SIZE = (72, 96)


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames of one size, as they were read.

    Attributes:
        images: ``(H, W)`` grey each.
        white: Value of white of each.
    """

    images: Sequence[Grey]
    white: Sequence[float]


class ScreenModel:
    """Screen from a bundle, or of a run.

    Args:
        network: The screen.
    """

    def __init__(self, network: Screen) -> None:
        self.network = network

    def __call__(self, frames: Frames) -> Floats:
        """Compute the probability ``(n,)`` of each frame that it shows the organ.

        Raises:
            InputError: The frames are smaller than the network takes.
        """
        return self.with_features(frames)[0]

    @torch.inference_mode()
    def with_features(self, frames: Frames) -> tuple[Floats, Floats]:
        """Compute the probabilities as above, and the features ``(n, D)`` that the guard goes by."""
        side = self.network.settings.side_px
        _refuse_small(frames.images[0].shape, LEAST_SIDE if side is None else 1, "screen")
        views = [screen_view(image, white, side) for image, white in zip(frames.images, frames.white, strict=True)]
        logits, features = self.network.with_features(torch.stack(views).to(_device(self.network)))
        return logits.float().sigmoid().cpu().numpy(), features.cpu().numpy()

    def raw(self, image: Grey) -> Tensor:
        """Compute the logit ``(1,)`` of a frame of 8 bits."""
        view = screen_view(image, 255.0, self.network.settings.side_px)
        logits: Tensor = self.network(view[None].to(_device(self.network)))
        return logits


class SegmentModel:
    """Segmenter from a bundle, or of a run.

    Args:
        network: The segmenter.
        size_px: Height and width to which frames are resized; None: their own.
    """

    def __init__(self, network: ResidualUNet, size_px: tuple[int, int] | None) -> None:
        self.network, self.size_px = network, size_px

    def __call__(self, frames: Frames) -> Floats:
        """Compute the probability ``(n, H, W)`` of each pixel, in the pixels of the frames.

        Raises:
            InputError: The frames are smaller than the network takes.
        """
        return self._found(frames)[0]

    def with_features(self, frames: Frames) -> tuple[Floats, Floats]:
        """Compute the probabilities as above, and the features ``(n, D)`` that the guard goes by."""
        found, maps = self._found(frames)
        return found, spread_of(maps).cpu().numpy()

    @torch.inference_mode()
    def _found(self, frames: Frames) -> tuple[Floats, list[Tensor]]:
        """Compute the probabilities, and the maps of all scales."""
        height, width = frames.images[0].shape
        _refuse_small(self.size_px or (height, width), self.network.least_side, "segmenter")
        views = torch.stack([segmenter_view(fitted(image, self.size_px)) for image in frames.images])
        maps, skips = self.network.encode(views.to(_device(self.network)))
        logits = self.network.decode(maps, skips, (views.shape[-2], views.shape[-1]))
        found: Floats = logits.float().sigmoid()[:, 0].cpu().numpy()
        if found.shape[1:] != (height, width):
            found = np.stack([cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in found])
        return found, [*skips, maps]

    def raw(self, image: Grey) -> Tensor:
        """Compute the logits ``(1, 1, H, W)`` of a frame, at the size that the network sees."""
        view = segmenter_view(fitted(image, self.size_px))
        logits: Tensor = self.network(view[None].to(_device(self.network)))
        return logits


Model = ScreenModel | SegmentModel


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Model from a bundle, in inference mode, with its card."""

    model: Model
    card: Card


def model_of(network: Network, size_px: tuple[int, int] | None) -> Model:
    """Make the model of a network; ``size_px`` is for a segmenter."""
    return ScreenModel(network) if isinstance(network, Screen) else SegmentModel(network, size_px)


def describe(card: Card, network: Network, config: UltrasoundConfig) -> Card:
    """Fill in architecture and preprocessing of a network's card."""
    architecture: dict[str, Any] = {"kind": "segmenter", **network.settings.model_dump(mode="json")}
    preprocessing: dict[str, Any] = {"values": "z-score of each frame (n - 1)", "size_px": config.data.size_px}
    if isinstance(network, Screen):
        architecture["kind"] = "screen"
        rules = network.rules.model_dump(mode="json", include={"values", "mean", "std"}) if network.rules else None
        preprocessing = {"values": "0 to 1", "rgb": rules}
    return card.model_copy(update={"architecture": architecture, "preprocessing": preprocessing})


def save_network(folder: Path, network: Network, card: Card) -> Card:
    """Write a network as a bundle; ``card`` is from ``describe``."""

    def answer(tensors: Tensors, inputs: Tensors) -> Tensors:
        return raw_outputs(_built(folder, card, tensors), inputs)

    golden = Golden(inputs=golden_inputs(network), answer=answer)
    return bundle.save(folder, network.state_dict(), card, golden)


def load_network(path: Path, device: torch.device | str = "cpu", kind: str | None = None) -> Loaded:
    """Load a screen or segmenter from a bundle; its weights are frozen.

    Args:
        path: The bundle, a folder or its zip.
        device: Device of the network.
        kind: Accept a ``screen`` or a ``segmenter`` alone.

    Raises:
        CheckpointError: As for ``bundle.load``; or the bundle is of the other kind.
    """
    content = bundle.load(path, TASK)
    if kind:
        check_kind(path, content.card, kind)
    if content.card.architecture.get("kind") != "screen":  # which alone is calibrated
        refuse_unapplied(content.card, "calibration")
    model = _built(path, content.card, content.tensors)
    model.network.to(device)
    return Loaded(model=model, card=content.card)


def quicken(model: Model) -> None:
    """Change a model that is used for inference alone so that it computes the same in less time, in place.

    The norms of a screen go into its convolutions, and weights lie as convolutions on a CPU take them best. Results
    differ by what rounding does; the weights are no longer those of the bundle.
    """
    if isinstance(model, ScreenModel):
        fold_norms(model.network)
    model.network.to(memory_format=torch.channels_last)


def check_kind(path: Path, card: Card, kind: str) -> None:
    """Refuse a bundle of the other kind.

    Raises:
        CheckpointError: It holds another network.
    """
    if card.architecture.get("kind") != kind:
        other = {"screen": "Give one of method=screen.", "segmenter": "Give one of method=segment."}[kind]
        raise CheckpointError(f"'{path}' holds a '{card.architecture.get('kind')}', no {kind}. {other}")


@torch.no_grad()
def raw_outputs(model: Model, inputs: Mapping[str, Tensor]) -> Tensors:
    """Compute the raw outputs of a model for the golden input ``pixels`` ``(H, W)`` uint8."""
    return {"logits": model.raw(inputs[GOLDEN_PIXELS].cpu().numpy()).float().cpu()}


def golden_inputs(network: Network) -> Tensors:
    """Make a small frame that the network takes: noise on a ramp."""
    least = 1 if isinstance(network, Screen) else network.least_side
    height, width = (max(side, least) for side in _GOLDEN_SIZE)
    noise = torch.randint(0, 64, (height, width), generator=torch.Generator().manual_seed(key("golden")))
    return {GOLDEN_PIXELS: (noise + torch.linspace(0, 150, width).long()).to(torch.uint8)}


def _built(path: Path, card: Card, tensors: Tensors) -> Model:
    network, size_px = _network(path, card)
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()
        raise CheckpointError(f"'{path}': the weights do not fit the architecture: {first[:200]}") from error
    return model_of(network.eval().requires_grad_(False), size_px)


def _network(path: Path, card: Card) -> tuple[Network, tuple[int, int] | None]:
    settings = dict(card.architecture)
    kind = settings.pop("kind", None)
    try:
        if kind == "screen":
            rules = card.preprocessing["rgb"]
            given = Preprocessing.model_validate(rules) if rules else None
            return Screen(ScreenNetwork.model_validate(settings), given), None
        if kind == "segmenter":
            size = card.preprocessing["size_px"]
            return ResidualUNet(Segmenter.model_validate(settings)), (int(size[0]), int(size[1])) if size else None
    except (KeyError, TypeError, ValueError, IndexError, ValidationError) as error:
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(f"'{path}': card.json does not describe a network ({told}). Make it again.") from error
    raise CheckpointError(f"'{path}' holds neither screen nor segmenter. Give the folder 'model' of a run.")


def _refuse_small(size: Sequence[int], least: int, kind: str) -> None:
    if min(size) < least:
        raise InputError(f"The {kind} needs frames of {least} pixels a side, found '{size[0]} x {size[1]}'.")


def _device(network: torch.nn.Module) -> torch.device:
    return next(network.parameters()).device
