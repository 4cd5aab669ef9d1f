"""Inference on images with an adapted detector, or with its source."""

from pathlib import Path
from typing import Self

import torch

from pipelines.sfod.config import SfodConfig
from vision_core.detection.predictor import DetectorPredictor, Read
from vision_core.detection.weights.bundles import load_detector
from vision_core.images.reading import read_noted_image
from vision_core.pipeline import Predictor
from vision_core.results import Detections
from vision_core.training.runtime import pick_device


class SfodPredictor(DetectorPredictor, Predictor[Detections]):
    """Detector of this task's bundles: ``SfodPredictor.from_checkpoint("model")("image.png")``."""

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str | torch.device = "auto", read: Read = read_noted_image
    ) -> Self:
        """Load a detector from a bundle, a folder or its zip.

        Args:
            path: The bundle.
            device: ``auto``, or a device of torch.
            read: As of the class.

        Raises:
            CheckpointError: The path is no sound bundle of this task.
        """
        detector, card = load_detector(Path(path), SfodConfig.task)
        return cls(detector, card, pick_device(device), read)
