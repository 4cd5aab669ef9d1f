"""Inference with an exported detector by onnxruntime; neither torch nor detectron2 is needed for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import CheckpointError, NotFiniteError
from vision_core.images.reading import read_noted_image, resize_shortest
from vision_core.optional import require
from vision_core.results import Detections

PADDING = "padding_rgb"  # entry of the metadata of an exported detector
_OUTPUTS = ["boxes", "scores", "labels"]


class OnnxDetector:
    """Detector of a file that ``export`` wrote: ``OnnxDetector("detector.onnx")("image.png")``.

    An image is resized until its longer side is that of the file, and padded at the right and below with the mean of
    the detector's input, which it takes for nothing. The result is that of the bundle for this padded image.

    Args:
        path: The ONNX file.
        threads: Threads of onnxruntime; None: as many as it likes.

    Raises:
        CheckpointError: The file is damaged, or no detector exported by this package.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        runtime = require("onnxruntime", why="an ONNX file is computed by it")
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"'{path}' is not a file. Give an ONNX file made by pipelines.sfod export.")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class for each cause, all in its compiled part
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"'{path}' is damaged or no ONNX file: {reason}. Export it again.") from error
        facts: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if PADDING not in facts or "classes" not in facts:
            raise CheckpointError(
                f"'{path}' is no detector that this package exported, or from before it noted '{PADDING}'. "
                "Export the bundle again with pipelines.sfod export."
            )
        self.classes: tuple[str, ...] = tuple(json.loads(facts["classes"]))
        self.model: str = facts["model"]
        self._padding = np.array(json.loads(facts[PADDING]), np.float32)
        self._side: int = self._session.get_inputs()[0].shape[-1]

    def __call__(self, item: str | Path | NDArray[np.uint8]) -> Detections:
        """Detect objects in an image file or an ``(H, W, 3)`` RGB array.

        Raises:
            InputError: The file cannot be read.
            NotFiniteError: An output is NaN or infinite.
        """
        pixels, notes = read_noted_image(Path(item)) if isinstance(item, str | Path) else (item, ())
        resized = resize_shortest(pixels, self._side, self._side)
        height, width = resized.shape[:2]
        padded = np.broadcast_to(self._padding, (self._side, self._side, 3)).copy()
        padded[:height, :width] = resized
        boxes, scores, labels = self._session.run(_OUTPUTS, {"image": padded.transpose(2, 0, 1).copy()})
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise NotFiniteError(f"image '{Path(item).name}'" if isinstance(item, str | Path) else "image")
        scale = np.array([pixels.shape[1] / width, pixels.shape[0] / height] * 2, np.float32)
        clipped = np.clip(boxes, 0, [width, height, width, height]) * scale
        has_area = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)  # others are of the padding
        return Detections(
            boxes=clipped[has_area].astype(np.float32),
            scores=scores[has_area].astype(np.float32),
            labels=labels[has_area].astype(np.int64),
            classes=self.classes,
            image_size=(pixels.shape[0], pixels.shape[1]),
            model=self.model,
            notes=tuple(f"The file {note}." for note in notes),
        )
