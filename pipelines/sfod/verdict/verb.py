"""The verb ``compare``: two bundles on one folder, with or without labels."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.verdict.comparing import (
    Compared,
    Comparison,
    Labelled,
    compare,
    gain_by_labels,
    load_model,
    suggest,
)
from pipelines.sfod.verdict.page import BY_LABELS, HEADLINES, changed_words, labelled_words, write_page
from vision_core.config import loading as configs
from vision_core.console import say, track
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.errors import EXIT_PARTIAL, InputError, UsageError, one_line
from vision_core.files import to_json, write_atomic, write_readme, writing
from vision_core.images.reading import image_size, list_images
from vision_core.images.untrusted import UntrustedImages
from vision_core.results import RESEARCH_NOTICE
from vision_core.training.runtime import pick_device

_PAGE, _RECORD, _TO_LABEL = "report.html", "comparison.json", "to_label.coco.json"
_FILES = {
    _PAGE: "The comparison to look at: verdict, pictures, numbers. It needs no network.",
    _RECORD: "The same as numbers, fractions.",
    _TO_LABEL: "With --suggest: the images that are worth labels, as COCO without boxes.",
    "pictures/": "The images that differ most.",
}


def run(arguments: argparse.Namespace, config_class: type[SfodConfig], build: Callable[[], object]) -> int:
    """Compare, print the verdict and what changed, and write page and record."""
    out: Path = arguments.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out '{out}' is not empty: earlier results would be replaced. Give a new folder.")
    device = pick_device(arguments.device or "auto")
    before, after = (load_model(path, device) for path in (arguments.before, arguments.after))
    paths, dataset = _images(arguments, config_class, before.detector.classes)
    read = UntrustedImages().noted_image
    comparison = compare(before, after, track(paths, len(paths), "compare", "image"), read)
    labelled = _by_labels(comparison, dataset) if dataset else None
    names = [each.card.identity() for each in (before, after)]
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_page(out / _PAGE, comparison, names, labelled, read)
    write_atomic(out / _RECORD, to_json(_record(comparison, names, labelled)))
    if arguments.suggest:
        chosen = suggest(comparison.images, arguments.suggest)
        write_atomic(out / _TO_LABEL, to_json(_to_label(chosen, before.detector.classes)))
    write_readme(out, f"Comparison of {names[0]} and {names[1]}.", _FILES)
    for line in _told(comparison, labelled):
        say(one_line(line))
    say(one_line(f"Report: {out / _PAGE}"))
    return EXIT_PARTIAL if comparison.failed else 0


def _images(
    arguments: argparse.Namespace, config_class: type[SfodConfig], classes: tuple[str, ...]
) -> tuple[list[Path], DetectionDataset | None]:
    """List the images of ``--input``, or those of a labelled list."""
    if arguments.input and arguments.words:
        raise UsageError("Give --input, a folder without labels, or the settings of a labelled list, not both.")
    if arguments.input:
        paths = list_images(arguments.input) if arguments.input.is_dir() else [arguments.input]
        if not paths or not paths[0].exists():
            raise InputError(f"--input '{arguments.input}' holds no image.")
        return paths, None
    data = configs.load(config_class, None, arguments.words).data
    split = data.eval_split
    if not split:
        raise UsageError("Give --input FOLDER, or a labelled list: data.root=… data.format=… data.eval_split=….")
    dataset = read_dataset(data.model_copy(update={"classes": data.classes or classes}), split, with_labels=True)
    return [record.path for record in dataset.records], dataset


def _by_labels(comparison: Comparison, dataset: DetectionDataset) -> Labelled | None:
    by_path = {record.path: record for record in dataset.records}
    truths = [by_path[each.path] for each in comparison.images]
    return gain_by_labels(comparison.images, truths, dataset.classes)


def _told(comparison: Comparison, labelled: Labelled | None) -> list[str]:
    verdict, count = comparison.verdict, len(comparison.images)
    return [
        *(f"note: {note}" for note in comparison.notes),
        *(f"Not read: '{path.name}': {reason}" for path, reason in comparison.failed.items()),
        f"{count} images, score {comparison.operating_score:.2f} or more: {changed_words(comparison.images)}.",
        f"Boxes an image: {verdict.boxes[0]:.1f} before, {verdict.boxes[1]:.1f} after.",
        f"Without labels: {HEADLINES[verdict.kind]} {' '.join(verdict.reasons)}",
        *([f"{BY_LABELS[labelled.kind]} {labelled_words(labelled)}"] if labelled else []),
    ]


def _record(comparison: Comparison, names: list[str], labelled: Labelled | None) -> dict[str, Any]:
    return {
        "notice": RESEARCH_NOTICE,
        "models": names,
        "operating_score": comparison.operating_score,
        **asdict(comparison.verdict),
        "by_labels": {**asdict(labelled), "kind": labelled.kind} if labelled else None,
        "notes": comparison.notes,
        "images": {each.path.name: _changed(each) for each in comparison.images},
        "failed": {path.name: reason for path, reason in comparison.failed.items()},
    }


def _changed(image: Compared) -> dict[str, int]:
    return {name: len(getattr(image.changes, name)) for name in ("gained", "lost", "moved", "same")}


def _to_label(chosen: list[tuple[Compared, str]], classes: tuple[str, ...]) -> dict[str, Any]:
    """Write the images to label as COCO; ``chosen`` says of each why."""
    images = []
    for number, (each, why) in enumerate(chosen, start=1):
        height, width = image_size(each.path)
        images.append({"id": number, "file_name": each.path.name, "width": width, "height": height, "chosen": why})
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"info": {"description": RESEARCH_NOTICE}, "images": images, "categories": categories, "annotations": []}
