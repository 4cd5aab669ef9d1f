"""Bundles of screens and segmenters, each with a golden pair of a frame's bytes and raw outputs.

A bundle holds one network, or several whose probabilities are averaged; its card then names them as ``members``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
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
from vision_core.segmentation.postprocess import mean_of_members
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
        networks: The screen; of several, alike in their settings, the mean probability counts.
    """

    def __init__(self, *networks: Screen) -> None:
        self.networks = networks

    @property
    def side_px(self) -> int | None:
        """Side of the square that frames are resized to; None: their own size."""
        return self.networks[0].settings.side_px

    def __call__(self, frames: Frames) -> Floats:
        """Compute the probability ``(n,)`` of each frame that it shows the organ.

        Raises:
            InputError: The frames are smaller than the network takes.
        """
        return self.with_features(frames)[0]

    @torch.inference_mode()
    def with_features(self, frames: Frames) -> tuple[Floats, Floats]:
        """Compute the probabilities as above, and the features ``(n, D)`` that the guard goes by, of all networks."""
        _refuse_small(frames.images[0].shape, LEAST_SIDE if self.side_px is None else 1, "screen")
        pairs = zip(frames.images, frames.white, strict=True)
        views = torch.stack([screen_view(image, white, self.side_px) for image, white in pairs])
        found = [network.with_features(views.to(_device(network))) for network in self.networks]
        scores = mean_of_members([logits.float().sigmoid().cpu().numpy() for logits, _ in found])
        return scores, np.concatenate([features.cpu().numpy() for _, features in found], axis=1)

    def raw(self, image: Grey) -> Tensor:
        """Compute the logit ``(1,)`` of a frame of 8 bits."""
        return self.logits(screen_view(image, 255.0, self.side_px)[None])

    def logits(self, views: Tensor) -> Tensor:
        """Compute the logits ``(n,)`` of prepared frames ``(n, 1, H, W)``."""
        return logit_of_mean([network(views.to(_device(network))) for network in self.networks])


class SegmentModel:
    """Segmenter from a bundle, or of a run.

    Args:
        networks: The segmenter; of several, alike in their settings, the mean probability counts.
        size_px: Height and width to which frames are resized; None: their own.
    """

    def __init__(self, *networks: ResidualUNet, size_px: tuple[int, int] | None) -> None:
        self.networks, self.size_px = networks, size_px

    @property
    def least_side(self) -> int:
        """Smallest height and width of a frame in pixels."""
        return self.networks[0].least_side

    def __call__(self, frames: Frames) -> Floats:
        """Compute the probability ``(n, H, W)`` of each pixel, in the pixels of the frames.

        Raises:
            InputError: The frames are smaller than the network takes.
        """
        return self._found(frames)[0]

    def with_features(self, frames: Frames) -> tuple[Floats, Floats]:
        """Compute the probabilities as above, and the features ``(n, D)`` that the guard goes by, of all networks."""
        found, maps = self._found(frames)
        return found, np.concatenate([spread_of(each).cpu().numpy() for each in maps], axis=1)

    @torch.inference_mode()
    def _found(self, frames: Frames) -> tuple[Floats, list[list[Tensor]]]:
        """Compute the probabilities, and the maps of all scales of each network."""
        height, width = frames.images[0].shape
        _refuse_small(self.size_px or (height, width), self.least_side, "segmenter")
        views = torch.stack([segmenter_view(fitted(image, self.size_px)) for image in frames.images])
        probabilities, all_maps = [], []
        for network in self.networks:
            maps, skips = network.encode(views.to(_device(network)))
            logits = network.decode(maps, skips, (views.shape[-2], views.shape[-1]))
            probabilities.append(logits.float().sigmoid()[:, 0].cpu().numpy())
            all_maps.append([*skips, maps])
        found: Floats = mean_of_members(probabilities)
        if found.shape[1:] != (height, width):
            found = np.stack([cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in found])
        return found, all_maps

    def raw(self, image: Grey) -> Tensor:
        """Compute the logits ``(1, 1, H, W)`` of a frame, at the size that the network sees."""
        return self.logits(segmenter_view(fitted(image, self.size_px))[None])

    def logits(self, views: Tensor) -> Tensor:
        """Compute the logits ``(n, 1, H, W)`` of prepared frames ``(n, 1, H, W)``."""
        return logit_of_mean([network(views.to(_device(network))) for network in self.networks])


Model = ScreenModel | SegmentModel


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Model from a bundle, in inference mode, with its card."""

    model: Model
    card: Card


def model_of(network: Network, size_px: tuple[int, int] | None) -> Model:
    """Make the model of a network; ``size_px`` is for a segmenter."""
    return ScreenModel(network) if isinstance(network, Screen) else SegmentModel(network, size_px=size_px)


def logit_of_mean(logits: Sequence[Tensor]) -> Tensor:
    """Compute the logit of the mean probability of ``logits``; a single one is returned."""
    if len(logits) == 1:
        return logits[0]
    every = torch.stack(tuple(logits))
    # By logarithms: the mean of probabilities close to 0 or 1 would be rounded to a logit of infinity.
    return F.logsigmoid(every).logsumexp(0) - F.logsigmoid(-every).logsumexp(0)


def describe(card: Card, network: Network, config: UltrasoundConfig) -> Card:
    """Fill in architecture and preprocessing of a network's card."""
    architecture: dict[str, Any] = {"kind": "segmenter", **network.settings.model_dump(mode="json")}
    preprocessing: dict[str, Any] = {"values": "z-score of each frame (n - 1)", "size_px": config.data.size_px}
    if isinstance(network, Screen):
        architecture["kind"] = "screen"
        rules = network.rules.model_dump(mode="json", include={"values", "mean", "std"}) if network.rules else None
        preprocessing = {"values": "0 to 1", "rgb": rules}
    return card.model_copy(update={"architecture": architecture, "preprocessing": preprocessing})


def save_networks(folder: Path, networks: Sequence[Network], card: Card) -> Card:
    """Write a network as a bundle, or several of one architecture; ``card`` is as from ``describe``."""

    def answer(tensors: Tensors, inputs: Tensors) -> Tensors:
        return raw_outputs(_built(folder, card, tensors), inputs)

    golden = Golden(inputs=golden_inputs(networks[0]), answer=answer)
    prefixes = [""] if len(networks) == 1 else [f"{number}." for number in range(len(networks))]
    tensors = {
        f"{prefix}{name}": tensor
        for prefix, network in zip(prefixes, networks, strict=True)
        for name, tensor in network.state_dict().items()
    }
    return bundle.save(folder, tensors, card, golden)


def load_network(path: Path, device: torch.device | str = "cpu", kind: str | None = None) -> Loaded:
    """Load a screen or segmenter, or several as one, from a bundle; the weights are frozen.

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
    for network in model.networks:
        network.to(device)
    return Loaded(model=model, card=content.card)


def quicken(model: Model) -> None:
    """Change a model that is used for inference alone so that it computes the same in less time, in place.

    The norms of a screen go into its convolutions, and weights lie as convolutions on a CPU take them best. Results
    differ by what rounding does; the weights are no longer those of the bundle.
    """
    for network in model.networks:
        if isinstance(network, Screen):
            fold_norms(network)
        network.to(memory_format=torch.channels_last)


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
    networks, size_px = _networks(path, card)
    is_single = len(networks) == 1
    try:
        for number, network in enumerate(networks):
            own = (
                tensors
                if is_single
                else {
                    name.removeprefix(f"{number}."): each
                    for name, each in tensors.items()
                    if name.startswith(f"{number}.")
                }
            )
            network.load_state_dict(own, strict=True)
    except RuntimeError as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()
        raise CheckpointError(f"'{path}': the weights do not fit the architecture: {first[:200]}") from error
    for network in networks:
        network.eval().requires_grad_(False)
    screens = [each for each in networks if isinstance(each, Screen)]
    segmenters = [each for each in networks if isinstance(each, ResidualUNet)]
    return ScreenModel(*screens) if screens else SegmentModel(*segmenters, size_px=size_px)


def _networks(path: Path, card: Card) -> tuple[list[Network], tuple[int, int] | None]:
    settings = dict(card.architecture)
    kind, members = settings.pop("kind", None), settings.pop("members", None)
    try:
        count = len(members) if members else 1
        if kind == "screen":
            rules = card.preprocessing["rgb"]
            given = Preprocessing.model_validate(rules) if rules else None
            screen = ScreenNetwork.model_validate(settings)
            return [Screen(screen, given) for _ in range(count)], None
        if kind == "segmenter":
            size = card.preprocessing["size_px"]
            segmenter = Segmenter.model_validate(settings)
            return [ResidualUNet(segmenter) for _ in range(count)], (int(size[0]), int(size[1])) if size else None
    except (KeyError, TypeError, ValueError, IndexError, ValidationError) as error:
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(f"'{path}': card.json does not describe a network ({told}). Make it again.") from error
    raise CheckpointError(f"'{path}' holds neither screen nor segmenter. Give the folder 'model' of a run.")


def _refuse_small(size: Sequence[int], least: int, kind: str) -> None:
    if min(size) < least:
        raise InputError(f"The {kind} needs frames of {least} pixels a side, found '{size[0]} x {size[1]}'.")


def _device(network: torch.nn.Module) -> torch.device:
    return next(network.parameters()).device
