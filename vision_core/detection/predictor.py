"""Inference on images with a detector from a bundle, and the files of its results."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_core.batch.job import FileProcessor
from vision_core.batch.ledger import Record, read_ledgers
from vision_core.batch.summary import THUMBNAIL
from vision_core.bundles.card import Card
from vision_core.detection.boxes import scale_boxes
from vision_core.detection.model.detector import DetectionTensors, Detector
from vision_core.detection.weights.bundles import answer
from vision_core.errors import NotFiniteError
from vision_core.files import hash_digits, origin_text, text_of, write_atomic
from vision_core.images.drawing import draw_boxes, write_png, write_thumbnail
from vision_core.images.notes import tell
from vision_core.images.reading import read_noted_image, resize_shortest, shrink_notes
from vision_core.results import RESEARCH_NOTICE, Detections, label_texts

DRAWN_SCORE = 0.5
COCO_FILE = "detections.coco.json"
RESULT_FILES = {
    ".json": "All objects: class, score, box in pixels of the image.",
    ".png": f"The image with the objects whose score is above {DRAWN_SCORE:g}.",
    THUMBNAIL: "The small picture in summary.html.",
    f"  ../{COCO_FILE}": "All objects of all images, for tools that read COCO results.",
}

Read = Callable[[Path], tuple[NDArray[np.uint8], tuple[str, ...]]]


class DetectorPredictor(FileProcessor[Detections]):
    """Detector of a bundle, for inference; a task adds how its bundles are loaded.

    Args:
        detector: The detector.
        card: Card of its bundle.
        device: Where it computes.
        read: Reads an image file and the notes on it; ``images.untrusted.UntrustedImages().noted_image`` for files of
            unknown origin.
    """

    def __init__(self, detector: Detector, card: Card, device: torch.device, read: Read = read_noted_image) -> None:
        self.card = card
        self._detector = detector.to(device)
        self._device = device
        self._read = read
        self._last: tuple[Path, tuple[NDArray[np.uint8], tuple[str, ...]]] | None = None

    @torch.inference_mode()
    def __call__(self, item: str | Path | NDArray[np.uint8]) -> Detections:
        """Detect objects in an image file or an ``(H, W, 3)`` RGB array; boxes clipped to nothing are left out.

        Raises:
            InputError: The file cannot be read.
            NotFiniteError: A feature or an output is NaN or infinite.
        """
        pixels, notes = self._noted(Path(item)) if isinstance(item, str | Path) else (item, ())
        size = (pixels.shape[0], pixels.shape[1])
        settings = self._detector.settings
        resized = resize_shortest(pixels, settings.shortest_edge_px, settings.longest_edge_px)
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))).to(self._device)
        detections = self._detect(tensor, f"image '{Path(item).name}'" if isinstance(item, str | Path) else "image")
        boxes = scale_boxes(detections.boxes, (resized.shape[0], resized.shape[1]), size).cpu().numpy()
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # as in detectron2's own predictor
        return Detections(
            boxes=boxes[has_area].astype(np.float32),
            scores=detections.scores.cpu().numpy()[has_area].astype(np.float32),
            labels=detections.labels.cpu().numpy()[has_area].astype(np.int64),
            classes=self._detector.classes,
            image_size=size,
            model=self.card.identity(),
            titles=self.card.class_titles,
            notes=tuple(f"The file {note}." for note in notes),
        )

    def write(self, result: Detections, path: str | Path, folder: str | Path) -> list[Path]:
        """Write ``<name>.json`` with all objects; those above 0.5 in ``<name>.png`` and a small ``<name>.jpg``."""
        path, folder = Path(path), Path(folder)
        record, picture, small = (folder / f"{path.stem}{ending}" for ending in (".json", ".png", THUMBNAIL))
        pixels = self._noted(path)[0]
        told = {"notes": list(result.notes)} if result.notes else {}
        content = {"image": path.name, "classes": list(result.classes), **result.to_record(), **told}
        write_atomic(record, json.dumps(content, indent=1, ensure_ascii=False))
        shown = result.above(DRAWN_SCORE)
        drawn = draw_boxes(pixels, shown.boxes, label_texts(shown))
        write_png(picture, drawn, origin_text(result.model, hash_digits(path), "frame 1"))
        write_thumbnail(small, drawn)
        return [record, picture, small]

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the raw outputs for the golden input."""
        return answer(self._detector, inputs)

    def remarks_on(self, size: tuple[int, int]) -> tuple[str, ...]:
        """Note on an image of ``(height, width)`` that is shrunk much: the rest of a sentence that begins with it."""
        settings = self._detector.settings
        return shrink_notes(size, settings.shortest_edge_px, settings.longest_edge_px)

    def _detect(self, image: Tensor, where: str) -> DetectionTensors:
        """Detect as the detector does, which by itself leaves out boxes that are not finite, as if there were none."""
        features = self._detector.features([image])
        proposals = self._detector.propose(features)
        boxes = [each.boxes for each in proposals]
        logits, deltas = self._detector.score(self._detector.embed(self._detector.pool(features, boxes)))
        checked = [*features.maps.values(), logits, deltas]
        if not len(boxes[0]):  # left out too, where the proposals' own outputs are not finite
            objectness, offsets = self._detector.anchor_outputs(features)
            checked += [*objectness, *offsets]
        if not all(each.isfinite().all() for each in checked):
            raise NotFiniteError(where)
        return self._detector.select(features, proposals, logits, deltas)[0]

    def _noted(self, path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        # ``write`` follows the prediction of the same file, which need not be decoded twice.
        if self._last is None or self._last[0] != path:
            pixels, notes = self._read(path)
            notes = (*notes, *self.remarks_on((pixels.shape[0], pixels.shape[1])))
            tell(path, notes)
            self._last = path, (pixels, notes)
        return self._last[1]


def write_coco(out: Path, inputs: Sequence[Path], ids: Mapping[Path, int | str] | None = None) -> None:
    """Join the results of a batch into the COCO file ``detections.coco.json``.

    An image's id is the one of the person's own index where one is given, else the place of its input in the list, done
    or not; a category's id is the place of the class in the detector's own list. Both begin at 1.

    Args:
        out: Folder of the batch.
        inputs: All inputs, in order.
        ids: Ids of the inputs; None: their places.
    """
    known = read_ledgers(out / "ledger")
    root = Path(os.path.commonpath([path.parent for path in inputs])) if inputs else Path()
    found = {
        ids[path] if ids else place: (path.relative_to(root).as_posix(), _record(out, known.get(text_of(path))))
        for place, path in enumerate(dict.fromkeys(inputs), start=1)
    }
    records = {number: (name, record) for number, (name, record) in found.items() if record}
    classes = next((list(record["classes"]) for _, record in records.values()), [])
    annotations = [
        {"image_id": number, "category_id": classes.index(each["label"]) + 1, "score": each["score"], "iscrowd": 0}
        | _coco_box(each["box"])
        for number, (_, record) in records.items()
        for each in record["objects"]
    ]
    content = {
        "info": {"description": RESEARCH_NOTICE, "models": sorted({record["model"] for _, record in records.values()})},
        "images": [
            {"id": number, "file_name": name, "width": record["width"], "height": record["height"]}
            for number, (name, record) in records.items()
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
        "annotations": [{"id": number} | each for number, each in enumerate(annotations, start=1)],
    }
    write_atomic(out / COCO_FILE, json.dumps(content, ensure_ascii=False))


def _record(out: Path, made: Record | None) -> dict[str, Any]:
    """Read the JSON record of an input; empty for one that is not done."""
    files = [each.file for each in made.outputs if each.file.endswith(".json")] if made else []
    return dict(json.loads((out / files[0]).read_text(encoding="utf-8"))) if files else {}


def _coco_box(box: list[float]) -> dict[str, object]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return {"bbox": [left, top, round(width, 2), round(height, 2)], "area": round(width * height, 2)}
