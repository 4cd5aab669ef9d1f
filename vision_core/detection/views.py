"""Weak and strong views of training images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_core.detection.boxes import scale_boxes
from vision_core.detection.datasets.reading import DetectionDataset
from vision_core.detection.model.detector import Targets
from vision_core.detection.settings import DetectorSettings
from vision_core.errors import InputError
from vision_core.images.augmentation import StrongView
from vision_core.images.augmentation_settings import StrongViewSettings
from vision_core.images.reading import read_noted_image, resize_shortest
from vision_core.randomness import key

_FLIP_PROBABILITY = 0.5


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of one step, RGB ``(3, H, W)`` uint8, pixel-aligned between the views.

    Attributes:
        weak: Resized only.
        strong: The same pixels changed in colour, sharpness and a few areas.
        indices: Numbers of the images in the list; keys of random draws.
        targets: Labels, for source training alone.
    """

    weak: list[Tensor]
    strong: list[Tensor]
    indices: list[int]
    targets: list[Targets]


class _Views:
    """Views of the images of a data set; random draws follow from (seed, epoch, index).

    Args:
        dataset: The images.
        detector: Size of the resized images and of the anchors.
        strong_view: Chain of the strong view; the published one if None.
        seed: Key of the draws.
        max_megapixels: Larger images are refused.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        detector: DetectorSettings,
        *,
        strong_view: StrongViewSettings | None = None,
        seed: int = 0,
        max_megapixels: float = 100.0,
    ) -> None:
        self.dataset = dataset
        self.strong_view = StrongView(strong_view)
        self.seed = seed
        self.edges = detector.shortest_edge_px, detector.longest_edge_px
        self.smallest_anchor_px = min(min(sizes) for sizes in detector.anchor_sizes)
        self.max_megapixels = max_megapixels

    def __len__(self) -> int:
        return len(self.dataset.records)

    def names(self, indices: Sequence[int]) -> list[str]:
        """Return the file names of items."""
        return [self.dataset.records[index].path.name for index in indices]

    def collate(self, items: list[Batch]) -> Batch:
        """Join items into one batch."""
        return Batch(
            weak=[image for item in items for image in item.weak],
            strong=[image for item in items for image in item.strong],
            indices=[index for item in items for index in item.indices],
            targets=[target for item in items for target in item.targets],
        )

    def _read(self, index: int) -> NDArray[np.uint8]:
        # Notes were told by the check before the run; an epoch repeats none.
        return read_noted_image(self.dataset.records[index].path, self.max_megapixels, key="data.max_megapixels")[0]

    def _resized(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        resized = resize_shortest(image, *self.edges)
        height, width = resized.shape[:2]
        if max(height, width) < self.smallest_anchor_px:
            raise InputError(
                f"'{self.dataset.records[index].path}' is '{width} x {height}' px after resizing; the detector's "
                f"smallest anchor has {self.smallest_anchor_px:g} px. Enlarge the images, or take another detector."
            )
        return resized

    def _strong(self, image: NDArray[np.uint8], epoch: int, index: int) -> NDArray[np.uint8]:
        return self.strong_view(image, key("view", self.seed, epoch, index))


class TargetViews(_Views):
    """Weak and strong views of unlabelled target images; never flipped, labels are never read."""

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, index = place
        weak = self._resized(self._read(index), index)
        strong = self._strong(weak, epoch, index)
        return Batch(weak=[_to_tensor(weak)], strong=[_to_tensor(strong)], indices=[index], targets=[])


class LabelledViews(_Views):
    """Strong views of labelled source images, half of them mirrored."""

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, index = place
        record = self.dataset.records[index]
        original = self._read(index)
        image = self._resized(original, index)
        boxes = scale_boxes(torch.from_numpy(record.boxes), original.shape[:2], image.shape[:2])
        if np.random.default_rng(key("flip", self.seed, epoch, index)).random() < _FLIP_PROBABILITY:
            image = image[:, ::-1]
            boxes = flip_boxes(boxes, image.shape[1])
        is_target = ~torch.from_numpy(record.crowd)
        targets = Targets(boxes=boxes[is_target], labels=torch.from_numpy(record.labels)[is_target])
        strong = self._strong(np.ascontiguousarray(image), epoch, index)
        return Batch(weak=[], strong=[_to_tensor(strong)], indices=[index], targets=[targets])


def flip_boxes(boxes: Tensor, width: int) -> Tensor:
    """Mirror boxes ``(N, 4)`` left to right in an image of ``width`` pixels."""
    left, top, right, bottom = boxes.unbind(dim=1)
    return torch.stack([width - right, top, width - left, bottom], dim=1)


def sampling_keys(seed: int, step: int, indices: Sequence[int]) -> list[tuple[int, int]]:
    """Derive seeds of anchor and region sampling, a pair per image."""
    return [(key("rpn", seed, step, index), key("roi", seed, step, index)) for index in indices]


def _to_tensor(image: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
