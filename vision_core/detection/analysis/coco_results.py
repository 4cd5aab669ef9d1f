"""Labels and detections of an evaluation as COCO files, for pycocotools and what reads its formats."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vision_core.detection.datasets.conversion.coco_files import coco_categories, coco_index, image_names
from vision_core.detection.datasets.reading import DetectionDataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError
from vision_core.files import write_atomic
from vision_core.results import Detections

LABELS, DETECTIONS = "labels.coco.json", "detections-{model}.json"


def write_results(
    folder: Path, data: DetectionData, dataset: DetectionDataset, found: Mapping[str, Sequence[Detections]]
) -> tuple[str, ...]:
    """Write the scored labels as a COCO index, and the detections of each model as a list of results.

    Ids of images and categories are those of the index where the list is a COCO one. Difficult boxes are marked as
    crowd regions, as the COCO metric of this package takes them.

    Args:
        folder: Where to.
        data: Where the list is.
        dataset: The list.
        found: Detections by model, one per image.

    Returns:
        What could not be written.
    """
    categories = coco_categories(data, data.eval_split or data.split, dataset.classes)
    records = tuple(replace(each, crowd=each.crowd | each.difficult, extras=()) for each in dataset.records)
    names = image_names(records)
    try:
        index = coco_index(replace(dataset, records=records), names, categories, keep_ids=data.format == "coco")
    except DataError as error:
        return (f"Detections are not written as COCO files: {error}",)
    write_atomic(folder / LABELS, json.dumps(index, ensure_ascii=False))
    ids = [image["id"] for image in index["images"]]
    for model, detections in found.items():
        results = [
            {"image_id": number, "category_id": categories[name]["id"], "bbox": box, "score": float(score)}
            for number, each in zip(ids, detections, strict=True)
            for name, box, score in zip(
                (each.classes[label] for label in each.labels), _boxes(each), each.scores, strict=True
            )
            if name in categories
        ]
        write_atomic(folder / DETECTIONS.format(model=model), json.dumps(results))
    return ()


def _boxes(found: Detections) -> list[list[float]]:
    """Convert corners to left, top, width and height."""
    boxes = found.boxes.astype(np.float64)
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).round(4).tolist()  # type: ignore[no-any-return]
