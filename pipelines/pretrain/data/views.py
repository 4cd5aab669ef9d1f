"""Views of images as uint8 tensors: a random crop in training, the centre in scoring.

Pillow crops and resizes in both. The random box is drawn here, from Python's generator: bits of trained networks
depend on it. Policies and erasing are torchvision's.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipelines.pretrain.data.index import Images
from pipelines.pretrain.data.preprocessing import MEAN, centre_view
from pipelines.pretrain.data_settings import Augmentation, Policy, PretrainData
from vision_core.errors import InputError
from vision_core.randomness import key, seeded

_CROP_ATTEMPTS = 10
_MEAN_GREY = round(255 * MEAN)

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of one step, to be normalised by ``preprocessing.normalise``.

    Attributes:
        images: ``(B, 3, S, S)`` uint8, RGB.
        labels: ``(B,)`` int64 class numbers; ``(B, classes)`` of 0 and 1 where an image may have several.
        indices: ``(B,)`` int64 numbers of the images in the list, from which seeds are made.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


class CentreViews:
    """Centre crops of images for scoring, the same in every epoch."""

    def __init__(self, images: Images, data: PretrainData) -> None:
        self.images = images
        self.data = data

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        _, index = place
        return self._item(centre_view(self._read(index), self.data.resize_px, self.data.image_px), index)

    def names(self, indices: Sequence[int]) -> list[str]:
        """Return the names of images, for messages."""
        return [self.images.pixels.name(index) for index in indices]

    def collate(self, items: list[Batch]) -> Batch:
        """Join items into one batch."""
        return Batch(
            images=torch.cat([item.images for item in items]),
            labels=torch.cat([item.labels for item in items]),
            indices=torch.cat([item.indices for item in items]),
        )

    def _read(self, index: int) -> NDArray[np.uint8]:
        try:
            return self.images.read(index)
        except InputError as error:
            told = " Set data.on_corrupt to 'skip': then all files are decoded before training, and such are left out."
            raise InputError([*error.problems[:-1], error.problems[-1] + told]) from error

    def _item(self, view: NDArray[np.uint8], index: int) -> Batch:
        pixels = torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))
        label = torch.from_numpy(np.array(self.images.labels[index])[None])
        return Batch(images=pixels[None], labels=label, indices=torch.tensor([index]))


class TrainingViews(CentreViews):
    """Random crops of images for training; all draws follow from (seed, epoch, index)."""

    def __init__(self, images: Images, data: PretrainData, seed: int) -> None:
        super().__init__(images, data)
        self.seed = seed

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, index = place
        seed = key("view", self.seed, epoch, index)
        return self._item(training_view(self._read(index), self.data.image_px, self.data.augment, seed), index)


def training_view(image: NDArray[np.uint8], side: int, augment: Augmentation, seed: int) -> NDArray[np.uint8]:
    """Crop a random box of ``image``, resize, mirror and augment it.

    Args:
        image: ``(H, W, 3)``.
        side: Side of the result in pixels.
        augment: Settings of crop and augmentation.
        seed: All draws follow from it.

    Returns:
        ``(side, side, 3)`` uint8.
    """
    draw = random.Random(seed)
    box = random_box(image.shape[:2], augment.crop_area, augment.crop_aspect, draw)
    picture = Image.fromarray(image).crop(box).resize((side, side), Image.Resampling.BILINEAR)
    if draw.random() < augment.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augment.policy != "none":
        picture = _by_policy(picture, augment.policy, key("policy", seed))
    view = np.array(picture)
    if augment.erasing:
        _erase(view, augment.erasing, key("erasing", seed))
    return view


def random_box(
    size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float], draw: random.Random
) -> Box:
    """Draw a box of random area and log-uniform proportions that fits into an image.

    Where ten draws in a row do not fit, it is the largest box in the middle within the proportions.

    Args:
        size: ``(height, width)``.
        area: Share of the image, from, to.
        aspect: Width over height, from, to.
        draw: Random generator.

    Returns:
        ``left, top, right, bottom`` in pixels.
    """
    height, width = size
    for _ in range(_CROP_ATTEMPTS):
        wanted = height * width * draw.uniform(*area)
        proportion = float(np.exp(draw.uniform(*np.log(aspect))))
        box_width, box_height = round((wanted * proportion) ** 0.5), round((wanted / proportion) ** 0.5)
        if 0 < box_width <= width and 0 < box_height <= height:
            left, top = draw.randint(0, width - box_width), draw.randint(0, height - box_height)
            return left, top, left + box_width, top + box_height
    box_width = min(width, max(1, round(height * aspect[1])))
    box_height = min(height, max(1, round(width / aspect[0])))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def _by_policy(picture: Image.Image, policy: Policy, seed: int) -> Image.Image:
    """Apply a published augmentation policy of torchvision."""
    from torchvision import transforms

    kinds: dict[str, Callable[..., Callable[[Image.Image], Image.Image]]] = {
        "randaugment": transforms.RandAugment,
        "trivialaugment": transforms.TrivialAugmentWide,
        "augmix": transforms.AugMix,
        "autoaugment": transforms.AutoAugment,
    }
    change = kinds[policy](interpolation=transforms.InterpolationMode.BILINEAR)
    with seeded(seed):
        return change(picture)


def _erase(view: NDArray[np.uint8], probability: float, seed: int) -> None:
    """Fill a random rectangle with the mean grey, in place (Zhong et al., "Random erasing", 2020)."""
    from torchvision.transforms import v2

    erase = v2.RandomErasing(probability, scale=(0.02, 0.33), ratio=(0.3, 3.3), value=_MEAN_GREY, inplace=True)
    with seeded(seed):
        erase(torch.from_numpy(view.transpose(2, 0, 1)))
