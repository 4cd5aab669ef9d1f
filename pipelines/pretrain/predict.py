"""Inference with a bundle: one image in, ``ClassScores`` out; and what the policy of the run would hide in it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.preprocessing import centre_view, normalise
from pipelines.pretrain.noise_mask.mask import NoiseMask
from pipelines.pretrain.noise_mask.pictures import Picture, draw_masks
from pipelines.pretrain.noise_mask.policy import NoisePolicy
from pipelines.pretrain.weights.bundles import (
    NO_CLASSES,
    POLICY,
    Classifier,
    answered,
    load_classifier,
    load_policy,
    policy_answer,
)
from vision_core.backbones.settings import Preprocessing
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.images.untrusted import read_any
from vision_core.pipeline import Predictor
from vision_core.results import ClassScores
from vision_core.training.runtime import pick_device

Read = Callable[[Path], NDArray[np.uint8]]


class PolicyReader(Predictor[Picture]):
    """Policy from a bundle, which draws masks over images."""

    def __init__(
        self, loaded: tuple[NoisePolicy, PretrainConfig, Card], device: torch.device, read: Read = read_any
    ) -> None:
        noise, settings, self.card = loaded
        self._read = read
        self._noise = noise.to(device)
        self._settings = settings
        self._mask = NoiseMask(settings.mask, settings.data.image_px).to(device)
        self._device = device

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str | torch.device = "auto", read: Read = read_any
    ) -> "PolicyReader":
        """Load the folder ``policy`` of a run; ``read`` is as for ``PretrainPredictor``.

        Raises:
            CheckpointError: It is no sound bundle of a policy.
        """
        return cls(load_policy(Path(path)), pick_device(device), read)

    @torch.inference_mode()
    def __call__(self, item: str | Path | NDArray[np.uint8], seed: int = 0) -> Picture:
        """The image, its mean mask, and the image under that and under one sample, side by side.

        Args:
            item: A file, or ``(H, W, 3)`` RGB.
            seed: Of the sample.
        """
        side = self._settings.data.image_px
        pixels = self._read(Path(item)) if isinstance(item, str | Path) else item
        view = normalise(_tensor(centre_view(pixels, side, side), self._device))
        return draw_masks(view[0], self._noise.distributions(view), self._mask, seed)

    def write(self, result: Picture, path: Path, folder: Path) -> list[Path]:
        """``<name>.masks.png``."""
        picture = folder / f"{path.stem}.masks.png"
        write_png(picture, result)
        return [picture]

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raw outputs for the golden input."""
        return policy_answer(self._noise, inputs)


class PretrainPredictor(Predictor[ClassScores]):
    """Classifier from a bundle, with the policy beside it, if there is one.

    Attributes:
        policy: Draws masks; none where the run had no policy, or the bundle was moved without it.
    """

    def __init__(
        self, classifier: Classifier, device: torch.device, read: Read = read_any, policy: PolicyReader | None = None
    ) -> None:
        self.card = classifier.card
        self.policy = policy
        self._classifier = classifier
        self._network = classifier.network.to(device)
        self._device = device
        self._read = read
        self._last: tuple[Path, NDArray[np.uint8]] | None = None

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str | torch.device = "auto", read: Read = read_any
    ) -> "PretrainPredictor":
        """Load a bundle, a folder or its zip.

        Args:
            path: The bundle.
            device: Where to compute.
            read: Reads an image or DICOM file; ``images.untrusted.UntrustedImages`` for those of unknown origin.

        Raises:
            CheckpointError: It is no sound bundle of a classifier.
        """
        bundle, where = Path(path), pick_device(device)
        beside = bundle.parent / POLICY
        has_policy = bundle.name != POLICY and beside.is_dir()
        policy = PolicyReader.from_checkpoint(beside, where, read) if has_policy else None
        return cls(load_classifier(bundle), where, read, policy)

    @torch.inference_mode()
    def __call__(self, item: str | Path | NDArray[np.uint8]) -> ClassScores:
        """Score the classes for an image file (DICOM too), or for an ``(H, W, 3)`` RGB array.

        Raises:
            InputError: The file cannot be read.
            CheckpointError: The bundle has no classes.
        """
        if not self.card.classes:
            raise CheckpointError(NO_CLASSES)
        pixels = self._pixels(Path(item)) if isinstance(item, str | Path) else item
        logits = self._network(self._seen(pixels))[0].double()
        are_independent = self._classifier.are_independent
        scores = logits.sigmoid() if are_independent else logits.softmax(dim=0)
        return ClassScores(
            scores=scores.cpu().numpy().astype(np.float32),
            classes=self.card.classes,
            image_size=(pixels.shape[0], pixels.shape[1]),
            are_independent=are_independent,
            model=self.card.identity(),
        )

    def write(self, result: ClassScores, path: Path, folder: Path) -> list[Path]:
        """``<name>.json`` with all scores, and ``<name>.masks.png`` where there is a policy."""
        record = folder / f"{path.stem}.json"
        write_atomic(record, json.dumps({"image": path.name, **result.to_record()}, indent=1, ensure_ascii=False))
        if self.policy is None:
            return [record]
        return [record, *self.policy.write(self.policy(self._pixels(path)), path, folder)]

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raw outputs for the golden input."""
        return answered(self._network, inputs)

    def _seen(self, pixels: NDArray[np.uint8]) -> Tensor:
        """The image as the card says that the network sees it."""
        rules = self._classifier.preprocessing
        return _prepared(_tensor(centre_view(pixels, rules.resize_px, rules.input_px), self._device), rules)

    def _pixels(self, path: Path) -> NDArray[np.uint8]:
        # ``write`` follows the prediction of the same file, which need not be decoded twice.
        if self._last is None or self._last[0] != path:
            self._last = path, self._read(path)
        return self._last[1]


def _prepared(pixels: Tensor, rules: Preprocessing) -> Tensor:
    """``(B, 3, H, W)`` uint8 as float32, normalised by the rules of a card."""
    ordered = pixels.flip(1) if rules.channel_order == "bgr" else pixels
    values = ordered.float() / 255 if rules.values == "0 to 1" else ordered.float()
    mean, std = (values.new_tensor(each).view(3, 1, 1) for each in (rules.mean, rules.std))
    return (values - mean) / std


def _tensor(view: NDArray[np.uint8], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))[None].to(device)
