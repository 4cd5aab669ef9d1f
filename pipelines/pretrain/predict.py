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
    prepare,
)
from vision_core.batch.summary import THUMBNAIL
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError, NotFiniteError
from vision_core.files import hash_digits, origin_text, write_atomic
from vision_core.images.drawing import write_png, write_thumbnail
from vision_core.images.notes import tell
from vision_core.images.untrusted import read_any_noted
from vision_core.pipeline import Predictor
from vision_core.results import ClassScores, as_share
from vision_core.training.runtime import pick_device

RESULT_FILES = {
    ".json": "Category, scores of all classes, notes, model.",
    THUMBNAIL: "The small picture in summary.html.",
    ".masks.png": "The masks that the policy of the run draws over the image.",
}
_MOST_COLUMNS = 20  # of scores in results.csv; the record of an image has all
Read = Callable[[Path], tuple[NDArray[np.uint8], tuple[str, ...]]]


class PolicyPredictor(Predictor[Picture]):
    """Policy from a bundle; draws its masks over images."""

    def __init__(
        self, loaded: tuple[NoisePolicy, PretrainConfig, Card], device: torch.device, read: Read = read_any_noted
    ) -> None:
        policy, settings, self.card = loaded
        self._read = read
        self._policy = policy.to(device)
        self._image_px = settings.data.image_px
        self._mask = NoiseMask.from_settings(settings.mask, self._image_px).to(device)
        self._device = device

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str | torch.device = "auto", read: Read = read_any_noted
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
        pixels = self._read(Path(item))[0] if isinstance(item, str | Path) else item
        view = normalise(_tensor(centre_view(pixels, self._image_px, self._image_px), self._device))
        return draw_masks(view[0], self._policy.distributions(view), self._mask, seed)

    def write(self, result: Picture, path: str | Path, folder: str | Path) -> list[Path]:
        """Write ``<name>.masks.png``."""
        picture = Path(folder) / f"{Path(path).stem}.masks.png"
        write_png(picture, result, origin_text(self.card.identity(), hash_digits(Path(path)), "frame 1"))
        return [picture]

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the raw outputs of the golden input."""
        return policy_outputs(self._policy, inputs, self._image_px)


class PretrainPredictor(Predictor[ClassScores]):
    """Classifier from a bundle, with the policy of its run if that is beside it.

    Attributes:
        policy: Policy of the run; None if the run had none, or the bundle was moved without it.
    """

    def __init__(
        self,
        classifier: Classifier,
        device: torch.device,
        read: Read = read_any_noted,
        policy: PolicyPredictor | None = None,
    ) -> None:
        self.card = classifier.card
        self.policy = policy
        self._classifier = classifier
        self._network = classifier.network.to(device)
        self._device = device
        self._read = read
        self._last: tuple[Path, tuple[NDArray[np.uint8], tuple[str, ...]]] | None = None

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str | torch.device = "auto", read: Read = read_any_noted
    ) -> "PretrainPredictor":
        """Load a bundle, a folder or its zip.

        Args:
            path: Bundle of the classifier.
            device: Device of the networks.
            read: Reads an image or DICOM file and the notes on it; ``images.untrusted.UntrustedImages().noted`` for
                files of unknown origin.

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
            NotFiniteError: A logit is NaN or infinite.
        """
        if not self.card.classes:
            raise CheckpointError(NO_CLASSES)
        pixels, notes = self._noted(Path(item)) if isinstance(item, str | Path) else (item, ())
        logits = self._network(prepare(pixels, self._classifier.preprocessing, self._device))[0].double()
        if not logits.isfinite().all():
            raise NotFiniteError(f"image '{Path(item).name}'" if isinstance(item, str | Path) else "image")
        are_independent = self._classifier.are_independent
        scores = logits.sigmoid() if are_independent else logits.softmax(dim=0)
        return ClassScores(
            scores=scores.cpu().numpy().astype(np.float32),
            classes=self.card.classes,
            image_size=(pixels.shape[0], pixels.shape[1]),
            are_independent=are_independent,
            notes=tuple(f"The file {note}." for note in notes),
            model=self.card.identity(),
            titles=self.card.class_titles,
        )

    def write(self, result: ClassScores, path: str | Path, folder: str | Path) -> list[Path]:
        """Write ``<name>.json`` with all scores, a small ``<name>.jpg`` and, given a policy, ``<name>.masks.png``."""
        path, folder = Path(path), Path(folder)
        record, small = folder / f"{path.stem}.json", folder / f"{path.stem}{THUMBNAIL}"
        write_thumbnail(small, self._noted(path)[0])
        write_atomic(record, json.dumps({"image": path.name, **result.to_record()}, indent=1, ensure_ascii=False))
        if self.policy is None:
            return [record, small]
        return [record, small, *self.policy.write(self.policy(self._noted(path)[0]), path, folder)]

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the raw outputs of the golden input."""
        return classifier_outputs(self._network, inputs, self._classifier.preprocessing)

    def _noted(self, path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        # ``write`` follows the prediction of the same file: it is decoded once.
        if self._last is None or self._last[0] != path:
            self._last = path, self._read(path)
            tell(path, self._last[1][1])
        return self._last[1]


def columns(result: ClassScores) -> dict[str, str | float]:
    """Return the columns of a result in ``results.csv``; all scores where the classes are few."""
    best, value = result.ranked()[0]
    shares = zip(result.classes, result.scores, strict=True) if len(result.classes) <= _MOST_COLUMNS else ()
    return {
        "category": result.category,
        "verdict": result.verdict,
        "notice": " ".join(result.notes),
        "best class": best,
        "best score": as_share(value),
        **{f"p_{name}": as_share(share) for name, share in shares},
        "model": result.model,
    }


def _tensor(view: NDArray[np.uint8], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))[None].to(device)
