"""Inference with a bundle: class scores of an image, and the masks that the run's policy draws over it."""

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
    classifier_outputs,
    load_classifier,
    load_policy,
    policy_outputs,
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


class PolicyPredictor(Predictor[Picture]):
    """Policy from a bundle; draws its masks over images."""

    def __init__(
        self, loaded: tuple[NoisePolicy, PretrainConfig, Card], device: torch.device, read: Read = read_any
    ) -> None:
        policy, settings, self.card = loaded
        self._read = read
        self._policy = policy.to(device)
        self._image_px = settings.data.image_px
        self._mask = NoiseMask.from_settings(settings.mask, self._image_px).to(device)
        self._device = device

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str | torch.device = "auto", read: Read = read_any
    ) -> "PolicyPredictor":
        """Load the folder ``policy`` of a run; ``read`` is as for ``PretrainPredictor``.

        Raises:
            CheckpointError: The folder is no sound bundle of a policy.
        """
        return cls(load_policy(Path(path)), pick_device(device), read)

    @torch.inference_mode()
    def __call__(self, item: str | Path | NDArray[np.uint8], seed: int = 0) -> Picture:
        """Draw the image, its mean mask, and the image under that and under one sample, side by side.

        Args:
            item: Image file, or ``(H, W, 3)`` RGB.
            seed: Seed of the sample.
        """
        pixels = self._read(Path(item)) if isinstance(item, str | Path) else item
        view = normalise(_tensor(centre_view(pixels, self._image_px, self._image_px), self._device))
        return draw_masks(view[0], self._policy.distributions(view), self._mask, seed)

    def write(self, result: Picture, path: str | Path, folder: str | Path) -> list[Path]:
        """Write ``<name>.masks.png``."""
        picture = Path(folder) / f"{Path(path).stem}.masks.png"
        write_png(picture, result)
        return [picture]

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the raw outputs of the golden input."""
        return policy_outputs(self._policy, inputs)


class PretrainPredictor(Predictor[ClassScores]):
    """Classifier from a bundle, with the policy of its run if that is beside it.

    Attributes:
        policy: Policy of the run; None if the run had none, or the bundle was moved without it.
    """

    def __init__(
        self, classifier: Classifier, device: torch.device, read: Read = read_any, policy: PolicyPredictor | None = None
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
            path: Bundle of the classifier.
            device: Device of the networks.
            read: Reads an image or DICOM file; ``images.untrusted.UntrustedImages`` for files of unknown origin.

        Raises:
            CheckpointError: The bundle is not a sound one of a classifier.
        """
        bundle, where = Path(path), pick_device(device)
        beside = bundle.parent / POLICY
        has_policy = bundle.name != POLICY and beside.is_dir()
        policy = PolicyPredictor.from_checkpoint(beside, where, read) if has_policy else None
        return cls(load_classifier(bundle), where, read, policy)

    @torch.inference_mode()
    def __call__(self, item: str | Path | NDArray[np.uint8]) -> ClassScores:
        """Compute the class scores of an image file (DICOM too), or of an ``(H, W, 3)`` RGB array.

        Raises:
            InputError: The file cannot be read.
            CheckpointError: The bundle has no classes.
        """
        if not self.card.classes:
            raise CheckpointError(NO_CLASSES)
        pixels = self._pixels(Path(item)) if isinstance(item, str | Path) else item
        rules = self._classifier.preprocessing
        view = _tensor(centre_view(pixels, rules.resize_px, rules.input_px), self._device)
        logits = self._network(_normalised(view, rules))[0].double()
        are_independent = self._classifier.are_independent
        scores = logits.sigmoid() if are_independent else logits.softmax(dim=0)
        return ClassScores(
            scores=scores.cpu().numpy().astype(np.float32),
            classes=self.card.classes,
            image_size=(pixels.shape[0], pixels.shape[1]),
            are_independent=are_independent,
            model=self.card.identity(),
        )

    def write(self, result: ClassScores, path: str | Path, folder: str | Path) -> list[Path]:
        """Write ``<name>.json`` with all scores and, given a policy, ``<name>.masks.png``."""
        path, folder = Path(path), Path(folder)
        record = folder / f"{path.stem}.json"
        write_atomic(record, json.dumps({"image": path.name, **result.to_record()}, indent=1, ensure_ascii=False))
        if self.policy is None:
            return [record]
        return [record, *self.policy.write(self.policy(self._pixels(path)), path, folder)]

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the raw outputs of the golden input."""
        return classifier_outputs(self._network, inputs)

    def _pixels(self, path: Path) -> NDArray[np.uint8]:
        # ``write`` follows the prediction of the same file: it is decoded once.
        if self._last is None or self._last[0] != path:
            self._last = path, self._read(path)
        return self._last[1]


def _normalised(pixels: Tensor, rules: Preprocessing) -> Tensor:
    """Normalise ``(B, 3, H, W)`` uint8 to float32 by the rules of a card."""
    ordered = pixels.flip(1) if rules.channel_order == "bgr" else pixels
    values = ordered.float() / 255 if rules.values == "0 to 1" else ordered.float()
    mean, std = (values.new_tensor(each).view(3, 1, 1) for each in (rules.mean, rules.std))
    return (values - mean) / std


def _tensor(view: NDArray[np.uint8], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))[None].to(device)
