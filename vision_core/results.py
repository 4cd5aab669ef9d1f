"""Results: frozen, validated records of numpy arrays; the only things that apps and files ever see."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESEARCH_NOTICE = "For research use. Not for diagnosis."


@dataclass(frozen=True, kw_only=True)
class Detections:
    """The objects found in one image.

    Attributes:
        boxes: ``(N, 4)`` float32, ``xyxy`` in pixels of the original image.
        scores: ``(N,)`` float32 in [0, 1], highest first.
        labels: ``(N,)`` int64, index into ``classes``.
        classes: Names of the classes.
        image_size: ``(height, width)`` of the original image in pixels.
        model: What made them: method, version, and the hash of its weights.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    model: str = "unknown"

    def __post_init__(self) -> None:
        count = len(self.scores)
        _check("boxes", self.boxes, (count, 4), np.float32)
        _check("scores", self.scores, (count,), np.float32)
        _check("labels", self.labels, (count,), np.int64)
        if count and (self.labels.min() < 0 or self.labels.max() >= len(self.classes)):
            raise ValueError(
                f"labels: expected 0 to {len(self.classes) - 1}, found {self.labels.min()} to {self.labels.max()}"
            )
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("boxes and scores: expected finite numbers, found NaN or infinity")
        if count and (self.scores.min() < 0 or self.scores.max() > 1):
            raise ValueError(f"scores: expected 0 to 1, found {self.scores.min():g} to {self.scores.max():g}")
        if (np.diff(self.scores) > 0).any():
            raise ValueError("scores: expected the highest first")

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Detections":
        """Those with a score strictly greater than ``score``."""
        keep = self.scores > score
        return Detections(
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            classes=self.classes,
            image_size=self.image_size,
            model=self.model,
        )

    def to_record(self) -> dict[str, Any]:
        """A JSON-ready record: image size, model, notice, and one entry per object (box ``xyxy`` in pixels)."""
        objects = [
            {
                "label": self.classes[label],
                "score": round(float(score), 4),
                "box": [round(float(edge), 2) for edge in box],
            }
            for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True)
        ]
        height, width = self.image_size
        return {
            "width": width,
            "height": height,
            "model": self.model,
            "notice": RESEARCH_NOTICE,
            "objects": objects,
        }


def label_texts(found: Detections) -> list[str]:
    """Class and score of each object; the score alone where there is one class."""
    if len(found.classes) == 1:
        return [f"{score:.2f}" for score in found.scores]
    return [f"{found.classes[label]} {score:.2f}" for label, score in zip(found.labels, found.scores, strict=True)]


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {array.shape}")
    if array.dtype != dtype:
        raise ValueError(f"{name}: expected {np.dtype(dtype)}, found {array.dtype}")
