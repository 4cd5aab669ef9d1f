"""The verb ``compare``: two bundles on one folder, with or without labels."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.outcome.labelling import common_folder, read_returned, suggest, to_coco, to_record
from pipelines.sfod.verdict.by_labels import Design, Labelled, gain_by_labels
from pipelines.sfod.verdict.comparing import Compared, Comparison, compare, load_model
from pipelines.sfod.verdict.page import BY_LABELS, HEADLINES, changed_words, labelled_words, write_page
from pipelines.sfod.verdict.source import read_rule
from vision_core.config import loading as configs
from vision_core.console import command_line, say, track
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.errors import EXIT_PARTIAL, InputError, UsageError, one_line
from vision_core.files import to_json, write_atomic, write_readme, writing
from vision_core.images.reading import list_images
from vision_core.images.untrusted import UntrustedImages
from vision_core.results import RESEARCH_NOTICE
from vision_core.training.runtime import pick_device

_PAGE, _RECORD, _TO_LABEL = "report.html", "comparison.json", "to_label.coco.json"
_CHOSEN = (
    "These images were chosen for their differences, or drawn by chance: what is said by labels corrects for that; the "
    "numbers without labels, pictures and counts do not."
)
_FILES = {
    _PAGE: "The comparison to look at: verdict, pictures, numbers. It needs no network.",
    _RECORD: "The same as numbers, fractions.",
    _TO_LABEL: "With --suggest: the images that are worth labels, as COCO without boxes.",
    "pictures/": "The images that differ most.",
}


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What is to be compared on: images, their labels, how they were chosen, remarks."""

    paths: list[Path]
    dataset: DetectionDataset | None = None
    design: Design | None = None
    notes: tuple[str, ...] = ()


def run(arguments: argparse.Namespace, config_class: type[SfodConfig], build: Callable[[], object]) -> int:
    """Compare, print the verdict and what changed, and write page and record."""
    out: Path = arguments.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out '{out}' is not empty: earlier results would be replaced. Give a new folder.")
    device = pick_device(arguments.device or "auto")
    before, after = (load_model(path, device) for path in (arguments.before, arguments.after))
    names = [each.card.identity() for each in (before, after)]
    order = _order(arguments, config_class, before.detector.classes, names)
    read = UntrustedImages().noted_image
    shown = track(order.paths, len(order.paths), "compare", "image")
    comparison = compare(before, after, shown, read, read_rule(before.card))
    comparison = replace(comparison, notes=(*comparison.notes, *order.notes))
    labelled = _by_labels(comparison, order) if order.dataset else None
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_page(out / _PAGE, comparison, names, labelled, read)
    record, told = _record(comparison, names, labelled), _told(comparison, labelled)
    if order.dataset and not labelled:
        told.append("By labels nothing can be said: no object is labelled.")
    if arguments.suggest:
        folder = common_folder(order.paths)
        chosen = suggest(comparison.images, arguments.suggest)
        write_atomic(out / _TO_LABEL, to_json(to_coco(chosen, before.detector.classes, folder)))
        record["suggested"] = to_record(chosen, len(comparison.images), folder)
        told += _how_to_return(arguments, folder, len(chosen))
    write_atomic(out / _RECORD, to_json(record))
    write_readme(out, f"Comparison of {names[0]} and {names[1]}.", _FILES)
    for line in told:
        say(one_line(line))
    say(one_line(f"Report: {out / _PAGE}"))
    return EXIT_PARTIAL if comparison.failed else 0


def _order(
    arguments: argparse.Namespace, config_class: type[SfodConfig], classes: tuple[str, ...], names: list[str]
) -> _Order:
    """List the images of ``--input``, those of them that came back labelled, or those of a labelled list."""
    if arguments.input and arguments.words:
        raise UsageError("Give --input, a folder without labels, or the settings of a labelled list, not both.")
    if (arguments.labels or arguments.suggested) and not (arguments.input and arguments.labels):
        raise UsageError("Labels of suggested images need --input FOLDER, the images, and --labels FILE.")
    if arguments.labels:
        suggested = (arguments.suggested or arguments.labels.parent) / _RECORD
        returned = read_returned(arguments.labels, suggested, arguments.input, names, classes)
        notes = (*returned.notes, _CHOSEN)
        paths = [each.path for each in returned.dataset.records]
        return _Order(paths=paths, dataset=returned.dataset, design=returned.design, notes=notes)
    if arguments.input:
        paths = list_images(arguments.input) if arguments.input.is_dir() else [arguments.input]
        if not paths or not paths[0].exists():
            raise InputError(f"--input '{arguments.input}' holds no image.")
        return _Order(paths=paths)
    data = configs.load(config_class, None, arguments.words).data
    split = data.eval_split
    if not split:
        raise UsageError("Give --input FOLDER, or a labelled list: data.root=… data.format=… data.eval_split=….")
    dataset = read_dataset(data.model_copy(update={"classes": data.classes or classes}), split, with_labels=True)
    return _Order(paths=[record.path for record in dataset.records], dataset=dataset)


def _by_labels(comparison: Comparison, order: _Order) -> Labelled | None:
    """Score by labels; of images that could not be read the kind is left out with them."""
    assert order.dataset is not None
    places = {record.path: place for place, record in enumerate(order.dataset.records)}
    read = [places[each.path] for each in comparison.images]
    design = replace(order.design, kinds=order.design.kinds[read]) if order.design else None
    truths = [order.dataset.records[place] for place in read]
    return gain_by_labels(comparison.images, truths, order.dataset.classes, design)


def _how_to_return(arguments: argparse.Namespace, folder: Path, count: int) -> list[str]:
    out: Path = arguments.out
    words = ["compare", str(arguments.before), str(arguments.after), "--input", str(folder)]
    words += ["--labels", str(out / _TO_LABEL), "--out", f"{out}-labelled"]
    return [
        f"To label: the {count} images of {out / _TO_LABEL}. Draw every object in each, and save as COCO in its place; "
        "take images out that nobody has looked at, as one without a box counts as empty. Then:",
        f"  {command_line(['python', '-m', 'pipelines.sfod', *words])}",
    ]


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
        "by_labels": _labelled_record(labelled) if labelled else None,
        "notes": comparison.notes,
        "images": {each.path.name: _changed(each) for each in comparison.images},
        "failed": {path.name: reason for path, reason in comparison.failed.items()},
    }


def _labelled_record(labelled: Labelled) -> dict[str, Any]:
    return {**asdict(labelled), "kind": labelled.kind, "boxes_needed": labelled.boxes_needed}


def _changed(image: Compared) -> dict[str, int]:
    return {name: len(getattr(image.changes, name)) for name in ("gained", "lost", "moved", "same")}
