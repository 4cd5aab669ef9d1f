"""Check of the scenes of "ovd-scenes": what a detector finds that sees only saturation and edge density."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from vision_core.detection.average_precision import coco_ap50
from vision_core.detection.datasets.records import DetectionDataset, ImageRecord
from vision_core.images.drawing import Picture
from vision_core.images.reading import read_image
from vision_core.results import Detections

_BLOCK_PX = 9  # over which edges are counted
_EDGE = 60.0  # gradient of grey values, by Sobel, that makes an edge
_BINS = 24
_QUANTILES = (0.5, 0.7, 0.85, 0.95)  # of objectness, and ...
_LEVELS = (0.3, 0.5, 0.7)  # ... values of it that cut pieces out
_SMALLEST_PX = 60  # of a piece

Floats = NDArray[np.float64]


def colour_check(train: DetectionDataset, test: DetectionDataset) -> float:
    """Score a detector that sees only saturation and edge density: AP50 of all classes, in percent.

    A table says how often pixels of a saturation and edge density lie on objects; pieces of such pixels are the boxes,
    and a forest classifies them by mean and spread of the two inside. Everything is labelled for it.
    """
    cues = [_cues(read_image(record.path)) for record in train.records]
    table = _object_table(cues, train.records)
    rows = [
        (_described(seen, box), int(label))
        for seen, record in zip(cues, train.records, strict=True)
        for box, label, crowd in zip(record.boxes, record.labels, record.crowd, strict=True)
        if not crowd
    ]
    forest = RandomForestClassifier(100, min_samples_leaf=5, random_state=0)
    forest.fit(np.array([each for each, _ in rows]), np.array([label for _, label in rows]))
    found = [_pieces(_cues(read_image(record.path)), table, forest, test.classes) for record in test.records]
    return 100 * (coco_ap50(test.records, found, test.classes).mean or 0.0)


def _cues(picture: Picture) -> Floats:
    """Compute saturation and edge density ``(H, W, 2)``, both in 0 to 1."""
    values = picture.astype(np.float64)
    highest = values.max(axis=2)
    saturation = (highest - values.min(axis=2)) / np.maximum(highest, 1)
    grey = values.mean(axis=2)
    edges = np.hypot(ndimage.sobel(grey, axis=0), ndimage.sobel(grey, axis=1)) > _EDGE
    return np.stack([saturation, ndimage.uniform_filter(edges.astype(float), _BLOCK_PX)], axis=2)


def _binned(cues: Floats) -> NDArray[np.int64]:
    both = (cues * _BINS).astype(np.int64).clip(0, _BINS - 1)
    bins: NDArray[np.int64] = both[..., 0] * _BINS + both[..., 1]
    return bins


def _object_table(cues: Sequence[Floats], records: Sequence[ImageRecord]) -> Floats:
    seen, objects = np.ones(_BINS**2) * 2, np.ones(_BINS**2)
    for each, record in zip(cues, records, strict=True):
        is_object = np.zeros(each.shape[:2], np.bool_)
        for left, top, right, bottom in record.boxes.astype(int):
            is_object[top:bottom, left:right] = True
        bins = _binned(each)
        seen += np.bincount(bins.ravel(), minlength=_BINS**2)
        objects += np.bincount(bins[is_object], minlength=_BINS**2)
    return objects / seen


def _described(cues: Floats, box: NDArray[np.float32]) -> Floats:
    left, top, right, bottom = box.astype(int)
    inside = cues[top : max(bottom, top + 1), left : max(right, left + 1)].reshape(-1, 2)
    return np.concatenate([inside.mean(axis=0), inside.std(axis=0)])


def _pieces(cues: Floats, table: Floats, forest: RandomForestClassifier, classes: tuple[str, ...]) -> Detections:
    objectness = table[_binned(cues)]
    boxes, scores = [], []
    for level in (*np.quantile(objectness, _QUANTILES), *_LEVELS):
        pieces, _ = ndimage.label(ndimage.binary_opening(objectness > level, iterations=2))
        for number, (rows, columns) in enumerate(ndimage.find_objects(pieces), start=1):
            if (pieces[rows, columns] == number).sum() >= _SMALLEST_PX:
                boxes.append((columns.start, rows.start, columns.stop, rows.stop))
                scores.append(float(objectness[rows, columns].mean()))
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    likely = np.zeros((len(boxes), len(classes)))
    if boxes:
        likely[:, forest.classes_] = forest.predict_proba(np.array([_described(cues, box) for box in corners]))
    likely *= np.array(scores).reshape(-1, 1)
    order = np.argsort(-likely.ravel(), kind="stable")
    return Detections(
        boxes=np.repeat(corners, len(classes), axis=0)[order],
        scores=likely.ravel()[order].astype(np.float32),
        labels=np.tile(np.arange(len(classes)), len(boxes))[order],
        classes=classes,
        image_size=cues.shape[:2],
    )
