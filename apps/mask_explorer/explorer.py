"""Masks of a policy over one image, and the classifier's scores with and without them."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.preprocessing import centre_view, normalise
from pipelines.pretrain.noise_mask.mask import NoiseMask, blend
from pipelines.pretrain.noise_mask.pictures import as_picture
from pipelines.pretrain.noise_mask.policy import NoisePolicy
from pipelines.pretrain.weights.bundles import POLICY, Classifier, load_classifier, load_policy
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError
from vision_core.randomness import key
from vision_core.results import ClassScores

Image = NDArray[np.uint8]
NUM_SAMPLES = 3
_SHARED_PREPROCESSING = ("resize_px", "input_px", "mean", "std", "channel_order", "values")


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """Masks over an image, and the class scores with and without them.

    Attributes:
        view: ``(S, S, 3)`` uint8, the centre of the image at the input size of both networks.
        masks: ``(1 + K, S, S)`` float32 in [0, 1], the remaining share of contrast: the mean mask, then samples.
        masked: ``(1 + K, S, S, 3)`` uint8, the view under each mask.
        scores: Class scores of the view, then under each mask; empty if none may be shown.
        seeds: ``(K,)`` seeds of the samples.
        image_size: ``(height, width)`` of the image in pixels.
        model: Names of classifier and policy, with the hashes of their weights.
    """

    view: Image
    masks: NDArray[np.float32]
    masked: Image
    scores: tuple[ClassScores, ...]
    seeds: tuple[int, ...]
    image_size: tuple[int, int]
    model: str

    def mask_names(self) -> list[str]:
        """Name the masks."""
        return ["mean mask", *(f"seed {seed}" for seed in self.seeds)]

    def hidden(self, which: int) -> NDArray[np.float32]:
        """Return the share of contrast ``(S, S)`` that a mask hides; 0 is the mean mask."""
        return np.asarray(1 - self.masks[which])


class MaskExplorer:
    """Classifier and policy of a run.

    Threads may share it; they take turns, since samples use torch's global random state.

    Args:
        classifier: Classifier from a bundle.
        policy: Policy from the bundle of the same run, with its settings and card.

    Attributes:
        card: Card of the classifier.
        policy_card: Card of the policy.

    Raises:
        CheckpointError: Their preprocessing differs, or the classifier has no classes.
    """

    def __init__(self, classifier: Classifier, policy: tuple[NoisePolicy, PretrainConfig, Card]) -> None:
        self.card = classifier.card
        self._policy, settings, self.policy_card = policy
        _check(self.card, self.policy_card)
        self._classifier = classifier
        self._mask = NoiseMask.from_settings(settings.mask, settings.data.image_px)
        self._turn = Lock()

    @classmethod
    def from_checkpoints(cls, model: Path, policy: Path) -> "MaskExplorer":
        """Load the folders ``model`` and ``policy`` of a run, or the ``model`` of a stage that followed.

        Raises:
            CheckpointError: One is no sound bundle of its kind, or they do not fit each other.
        """
        return cls(load_classifier(model), load_policy(policy))

    @classmethod
    def from_run(cls, run: Path) -> "MaskExplorer":
        """Load a folder with ``model`` and ``policy``; raises as ``from_checkpoints``."""
        return cls.from_checkpoints(run / "model", run / POLICY)

    def __call__(self, image: Image, first_seed: int = 0) -> Exploration:
        """Explore an image ``(H, W, 3)`` RGB; the samples have consecutive seeds from this one on."""
        rules = self._classifier.preprocessing
        view = centre_view(image, rules.resize_px, rules.input_px)
        return self._explore(view, (image.shape[0], image.shape[1]), first_seed)

    def resample(self, found: Exploration, first_seed: int) -> Exploration:
        """Explore the same image under other samples."""
        return self._explore(found.view, found.image_size, first_seed)

    def seen_part(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part of an image of ``(height, width)`` that both networks see.

        It is left, top, width and height, as shares of the image.
        """
        height, width = size
        side = min(size) * self._classifier.preprocessing.input_px / self._classifier.preprocessing.resize_px
        return (1 - side / width) / 2, (1 - side / height) / 2, side / width, side / height

    @torch.inference_mode()
    def _explore(self, view: Image, image_size: tuple[int, int], first_seed: int) -> Exploration:
        seeds = tuple(range(first_seed, first_seed + NUM_SAMPLES))
        image = normalise(torch.from_numpy(view.transpose(2, 0, 1).copy())[None])  # (1, 3, S, S)
        with self._turn:
            cells = self._policy.distributions(image)
            drawn = [cells.sample([key("shown mask", seed)]) for seed in seeds]
        masks = self._mask(torch.cat([cells.mean(), *drawn]))  # (1 + K, 1, S, S)
        masked = blend(image, masks)
        logits = self._classifier.network(torch.cat([image, masked])).double()  # (2 + K, classes)
        return Exploration(
            view=view,
            masks=masks[:, 0].clamp(0, 1).numpy(),
            masked=np.stack([as_picture(each) for each in masked]),
            scores=self._scores(logits, image_size),
            seeds=seeds,
            image_size=image_size,
            model=f"{self.card.identity()}, {self.policy_card.identity()}",
        )

    def _scores(self, logits: Tensor, image_size: tuple[int, int]) -> tuple[ClassScores, ...]:
        are_independent = self._classifier.are_independent
        scores = logits.sigmoid() if are_independent else logits.softmax(dim=1)
        return tuple(
            ClassScores(
                scores=row,
                classes=self.card.classes,
                image_size=image_size,
                are_independent=are_independent,
                model=self.card.identity(),
                titles=self.card.class_titles,
            )
            for row in scores.numpy().astype(np.float32)
        )


def _check(classifier: Card, policy: Card) -> None:
    if not classifier.classes:
        raise CheckpointError("The classifier's bundle is a backbone without classes. Give one with classes.")
    pairs = [(name, *(card.preprocessing.get(name) for card in (classifier, policy))) for name in _SHARED_PREPROCESSING]
    differences = [f"{name} '{one}' and '{other}'" for name, one, other in pairs if one != other]
    if differences:
        raise CheckpointError(
            f"Classifier and policy differ in preprocessing: {', '.join(differences)}. "
            "Give the folders 'model' and 'policy' of one run."
        )
