"""A classifier and images so small that a step takes a moment."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.views import Batch
from pipelines.pretrain.learner import CleanLearner, Goal
from pipelines.pretrain.learner import make_learner as make
from vision_core.config.loading import replace
from vision_core.randomness import key
from vision_core.training.loaders import Place

PIXELS, CLASSES, BATCH, GRID = 32, 3, 4, 4
GOAL = Goal(backbone="toy", classes=("a", "b", "c"))
SMALL = {
    "data.image_px": PIXELS,
    "mask.grid": GRID,
    "mask.kernel": 5,
    "mask.sigma": 2.0,
    "train.batch_size": BATCH,
    "train.epochs": 2,
    "train.eval_every": 0,
    "train.log_every": 1,
    "optim.lr": 0.01,
    "then": (),
}


def settings(**changes: Any) -> PretrainConfig:  # noqa: ANN401 (any key)
    """Small settings with dotted changes."""
    return replace(PretrainConfig(), SMALL | changes)


def image_batch(count: int = BATCH, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    """Random images with labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, PIXELS, PIXELS, generator=generator, dtype=dtype)
    return Batch(images=images, labels=torch.arange(count) % CLASSES, indices=torch.arange(count))


def small_classifier() -> nn.Module:
    """A convolution, a norm, a head."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, CLASSES)
    )


def make_learner(config: PretrainConfig, classifier: nn.Module | None = None) -> CleanLearner:
    """The learner of the first stage, always with the same starting weights."""
    classifier = classifier or small_classifier()
    torch.manual_seed(2)
    return make(config, classifier, GOAL, probes=image_batch(2, seed=9).images)


class ImageItems:
    """Images that are a little different in each epoch, by a keyed draw."""

    def __init__(self, count: int, dtype: torch.dtype = torch.float32) -> None:
        self.count, self.dtype = count, dtype

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: Place) -> Batch:
        epoch, index = place
        generator = torch.Generator().manual_seed(key("view", 0, epoch, index))
        image = torch.randn(1, 3, PIXELS, PIXELS, generator=generator) + index % CLASSES
        return Batch(images=image.to(self.dtype), labels=torch.tensor([index % CLASSES]), indices=torch.tensor([index]))

    def collate(self, items: list[Batch]) -> Batch:
        return Batch(
            images=torch.cat([item.images for item in items]),
            labels=torch.cat([item.labels for item in items]),
            indices=torch.cat([item.indices for item in items]),
        )

    def names(self, indices: Sequence[int]) -> list[str]:
        return [f"image {index}" for index in indices]
