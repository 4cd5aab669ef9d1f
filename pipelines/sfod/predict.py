"""Inference with a bundle: one image in, ``Detections`` out."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_core.bundle import Card
from vision_core.detection.boxes import scale_boxes
from vision_core.detection.bundles import answer, load_detector
from vision_core.detection.detector import Detector
from vision_core.files import write_atomic
from vision_core.images import draw_boxes, read_image, resize_shortest, write_png
from vision_core.results import Detections

DRAWN_SCORE = 0.5


class SfodPredictor:
    """A detector from a bundle.

    Attributes:
        card: What the bundle says of itself.
    """

    def __init__(self, detector: Detector, card: Card, device: torch.device) -> None:
        self.card = card
        self._detector = detector.to(device)
        self._device = device

    @classmethod
    def from_checkpoint(cls, path: Path, device: str | torch.device = "cpu") -> "SfodPredictor":
        """Load a bundle, a folder or its zip.

        Raises:
            CheckpointError: It is no sound bundle of a detector.
        """
        detector, card = load_detector(path)
        return cls(detector, card, torch.device(device))

    @torch.inference_mode()
    def __call__(self, image: Path | NDArray[np.uint8]) -> Detections:
        """The objects in an image file, or in an ``(H, W, 3)`` RGB array.

        Raises:
            InputError: The file cannot be read.
        """
        pixels = read_image(image) if isinstance(image, Path) else image
        size = (pixels.shape[0], pixels.shape[1])
        settings = self._detector.settings
        resized = resize_shortest(pixels, settings.shortest_edge_px, settings.longest_edge_px)
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))).to(self._device)
        found = self._detector.detect(self._detector.features([tensor]))[0]
        boxes = scale_boxes(found.boxes, (resized.shape[0], resized.shape[1]), size)
        return Detections(
            boxes=boxes.cpu().numpy().astype(np.float32),
            scores=found.scores.cpu().numpy().astype(np.float32),
            labels=found.labels.cpu().numpy().astype(np.int64),
            classes=self._detector.classes,
            image_size=size,
            model=self.card.identity(),
        )

    def write(self, result: Detections, path: Path, folder: Path) -> list[Path]:
        """``<name>.json`` with all objects and ``<name>.png`` with those above 0.5 drawn."""
        record, picture = folder / f"{path.stem}.json", folder / f"{path.stem}.png"
        write_atomic(record, json.dumps({"image": path.name, **result.to_record()}, indent=1, ensure_ascii=False))
        shown = result.above(DRAWN_SCORE)
        write_png(picture, draw_boxes(read_image(path), shown.boxes, label_texts(shown)))
        return [record, picture]

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raw outputs for the golden input."""
        return answer(self._detector, inputs)


def label_texts(found: Detections) -> list[str]:
    """Class and score of each object; the score alone where there is one class."""
    if len(found.classes) == 1:
        return [f"{score:.2f}" for score in found.scores]
    return [f"{found.classes[label]} {score:.2f}" for label, score in zip(found.labels, found.scores, strict=True)]
