"""Scores of detectors on a labelled list, their calibration, and pictures that compare them."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vision_core.bundles.bundle import amend, read_card
from vision_core.console import track
from vision_core.detection.analysis.errors_by_cause import errors_by_cause
from vision_core.detection.analysis.precision_recall import precision_recall, write_curves
from vision_core.detection.average_precision import AveragePrecision, all_metrics, coco_ap_by_size
from vision_core.detection.calibration import calibrate
from vision_core.detection.datasets.reading import DetectionDataset, manifest
from vision_core.detection.predictor import DRAWN_SCORE, Read
from vision_core.detection.settings import DetectionData
from vision_core.errors import EnvironmentFault
from vision_core.evaluation.rows import NUMBERS, Row
from vision_core.files import write_atomic
from vision_core.images.drawing import draw_boxes, side_by_side, write_png
from vision_core.images.reading import read_noted_image
from vision_core.results import Detections, label_texts

_PICTURES = 6

Predict = Callable[[Path], Detections]


def list_reader(data: DetectionData) -> Read:
    """Read the images of a list up to the size that its settings allow."""
    return partial(read_noted_image, max_megapixels=data.max_megapixels, key="data.max_megapixels")


def detect_all(predict: Predict, dataset: DetectionDataset, label: str) -> list[Detections]:
    """Detect the objects of each image, in order."""
    return [predict(record.path) for record in track(dataset.records, len(dataset.records), label, "image")]


def score(
    model: str,
    dataset: DetectionDataset,
    found: Sequence[Detections],
    classes: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> Row:
    """Compute VOC-2007 AP50, area AP50 and COCO AP of one model.

    Args:
        model: Its name in the row.
        dataset: The labelled images.
        found: Detections, one per image.
        classes: Classes that count; all that have labels if None.
        notes: What is to be said beside the scores.
    """
    counted = classes or dataset.classes
    results = all_metrics(dataset.records, found, dataset.classes)
    truths = results["voc07_ap50"].truths
    return Row(
        model=model,
        split=dataset.name,
        counts={
            "images": len(dataset.records),
            **dataset.left_out,
            "boxes": sum(truths[name] for name in counted),
        },
        metrics={name: _mean_precision(result, counted) for name, result in results.items()},
        per_class={f"{each}.{name}": result.per_class[each] for name, result in results.items() for each in counted},
        details=_details(dataset, found, counted),
        notes=(*dataset.notes, *notes),
    )


def calibrate_bundle(path: Path, dataset: DetectionDataset, found: Sequence[Detections], about: str) -> tuple[str, ...]:
    """Write the calibration of a detector on a labelled list into its card; returns what was done.

    A bundle that cannot be changed (a zip, a read-only folder) stays as it is.

    Args:
        path: The bundle.
        dataset: The labelled list.
        found: Its detections, one per image.
        about: What the list is, for the card.
    """
    card = read_card(path)
    known = f"list '{dataset.name}': {about}"
    made = calibrate(dataset.records, found, dataset.classes, data=known, manifest=manifest(dataset))
    record = made.model_dump(mode="json")
    before = card.calibration or {}
    if before.get("manifest") == record["manifest"]:
        record["statistics"] = before.get("statistics")  # of the same images
    if not path.is_dir() or {"statistics": None, **before} == record:
        return ()
    try:
        amend(path, calibration=record)
    except EnvironmentFault:
        return ()
    best = made.all.operating_score
    score_told = "no detection is right" if best is None else f"best F1 {made.all.f1:.2f} from score {best:.2f} on"
    return (f"Calibration on {made.images} images of '{dataset.name}' is on the card: {score_told}.",)


def draw_comparison(
    dataset: DetectionDataset,
    found: Mapping[str, Sequence[Detections]],
    folder: Path,
    classes: tuple[str, ...] | None = None,
    read: Read = read_noted_image,
) -> None:
    """Draw precision-recall curves and evenly spaced images, all models side by side, with captions.

    Args:
        dataset: The labelled images.
        found: Detections by model, one per image.
        folder: Where to.
        classes: Classes that count; all that have labels if None.
        read: Reads an image file and the notes on it.
    """
    count = len(dataset.records)
    chosen = sorted({round(position) for position in np.linspace(0, count - 1, min(_PICTURES, count))}) if count else []
    names = classes or dataset.classes
    curves = {model: precision_recall(dataset.records, each, dataset.classes) for model, each in found.items()}
    counted = {model: {name: each[name] for name in names if name in each} for model, each in curves.items()}
    captions = write_curves(folder, counted)
    for index in chosen:
        record = dataset.records[index]
        image, _ = read(record.path)  # notes were told by the check of the list
        shown = {model: detections[index].above(DRAWN_SCORE) for model, detections in found.items()}
        panels = [draw_boxes(image, each.boxes, label_texts(each)) for each in shown.values()]
        name = f"{index:04d}-{record.path.stem}.png"
        write_png(folder / name, side_by_side(panels))
        counts = "; ".join(f"{model}: {len(each)} above {DRAWN_SCORE:g}" for model, each in shown.items())
        captions[name] = f"{record.path.stem}, left to right {counts}; {len(record.boxes)} labelled"
    write_atomic(folder / "captions.json", json.dumps(captions, indent=1, ensure_ascii=False))


def _details(
    dataset: DetectionDataset, found: Sequence[Detections], counted: tuple[str, ...]
) -> dict[str, Mapping[str, float | None]]:
    errors = errors_by_cause(dataset.records, found, dataset.classes, counted)
    return {
        "AP by size (COCO)": coco_ap_by_size(dataset.records, found, dataset.classes, counted),
        "AP50 gained without errors of": errors.gains,
        f"errors {NUMBERS}": {cause: float(number) for cause, number in errors.counts.items()},
    }


def _mean_precision(result: AveragePrecision, counted: Sequence[str]) -> float | None:
    present = [value for name in counted if (value := result.per_class[name]) is not None]
    return float(np.mean(present)) if present else None
