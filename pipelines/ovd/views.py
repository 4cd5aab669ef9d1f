"""Weak and strong views of images with base boxes and candidates, alike in geometry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.ovd.pseudo_labels.label_file import Candidate
from pipelines.ovd.regions import OpenTargets
from vision_core.detection.boxes import scale_boxes
from vision_core.detection.datasets.reading import DetectionDataset
from vision_core.detection.datasets.records import ImageRecord
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.views import TargetViews, flip_boxes
from vision_core.images.augmentation_settings import StrongViewSettings
from vision_core.randomness import key

_FLIP_PROBABILITY = 0.5
_SMALLEST_PX = 1e-5  # sides below are those of empty boxes, as detectron2 filters them


@dataclass(frozen=True, kw_only=True)
class OpenBatch:
    """Images of one step, RGB ``(3, H, W)`` uint8; weak and strong views share sizes, geometry and targets.

    Attributes:
        weak: Resized and perhaps mirrored.
        strong: The same pixels changed in colour, sharpness and a few areas.
        indices: Numbers of the images in the list; keys of random draws.
        targets: Base boxes first, candidates behind.
    """

    weak: list[Tensor]
    strong: list[Tensor]
    indices: list[int]
    targets: list[OpenTargets]


class OpenViews(TargetViews):
    """Views of the images of a data set that was read with its base classes; draws follow from (seed, epoch, index).

    Args:
        dataset: The images; labels are numbered by all classes.
        detector: Largest edge and smallest anchor.
        candidates: Candidates by image id.
        edges_px: Shortest edges to draw from; that of the detector if empty.
        strong_view: Chain of the strong view; the published one if None.
        seed: Key of the draws.
        max_megapixels: Larger images are refused.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        dataset: DetectionDataset,
        detector: DetectorSettings,
        *,
        candidates: Mapping[str, Candidate] | None = None,
        edges_px: Sequence[int] = (),
        strong_view: StrongViewSettings | None = None,
        seed: int = 0,
        max_megapixels: float = 100.0,
    ) -> None:
        super().__init__(dataset, detector, strong_view=strong_view, seed=seed, max_megapixels=max_megapixels)
        self.candidates = candidates or {}
        self.edges_px = tuple(edges_px) or (detector.shortest_edge_px,)
        self._longest = detector.longest_edge_px

    def __getitem__(self, place: tuple[int, int]) -> OpenBatch:  # type: ignore[override]
        epoch, index = place
        record = self.dataset.records[index]
        original = self._read(index)
        generator = np.random.default_rng(key("open view", self.seed, epoch, index))
        self.edges = self.edges_px[int(generator.integers(len(self.edges_px)))], self._longest
        image = self._resized(original, index)
        targets = self._targets(record)
        boxes = scale_boxes(targets.boxes, original.shape[:2], image.shape[:2])
        if generator.random() < _FLIP_PROBABILITY:
            image = np.ascontiguousarray(image[:, ::-1])
            boxes = flip_boxes(boxes, image.shape[1])
        moved = OpenTargets(
            boxes=boxes,
            labels=targets.labels,
            is_base=targets.is_base,
            clip_scores=targets.clip_scores,
            confidence=targets.confidence,
        )
        is_whole = ((boxes[:, 2:] - boxes[:, :2]) > _SMALLEST_PX).all(dim=1)
        strong = self._strong(image, epoch, index)
        return OpenBatch(
            weak=[_to_tensor(image)], strong=[_to_tensor(strong)], indices=[index], targets=[moved.kept(is_whole)]
        )

    def collate(self, items: list[OpenBatch]) -> OpenBatch:  # type: ignore[override]
        """Join items into one batch."""
        return OpenBatch(
            weak=[image for item in items for image in item.weak],
            strong=[image for item in items for image in item.strong],
            indices=[index for item in items for index in item.indices],
            targets=[target for item in items for target in item.targets],
        )

    def _targets(self, record: ImageRecord) -> OpenTargets:
        """Join the base boxes of an image, crowds left out, and its candidates, in its own pixels."""
        is_object = ~record.crowd
        found = self.candidates.get(record.image_id)
        count, extra = int(is_object.sum()), 0 if found is None else len(found)
        none = np.empty(0, np.float32)
        parts = (none.reshape(0, 4), none.astype(np.int64), none, none)
        boxes, labels, clip, confidence = (
            parts if found is None else (found.boxes, found.labels, found.clip_scores, found.confidence)
        )
        return OpenTargets(
            boxes=torch.from_numpy(np.concatenate([record.boxes[is_object], boxes])),
            labels=torch.from_numpy(np.concatenate([record.labels[is_object], labels])),
            is_base=torch.arange(count + extra) < count,
            clip_scores=torch.from_numpy(np.concatenate([np.zeros(count, np.float32), clip])),
            confidence=torch.from_numpy(np.concatenate([np.ones(count, np.float32), confidence])),
        )


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
