"""Images worth labels: suggested by a comparison, and read back with boxes."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.sfod.verdict.by_labels import Design
from pipelines.sfod.verdict.comparing import Compared
from vision_core.detection.datasets.reading import DetectionDataset, read_dataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError, UsageError
from vision_core.images.reading import image_size
from vision_core.randomness import key
from vision_core.results import RESEARCH_NOTICE

_KINDS = ("differs most", "at random")


@dataclass(frozen=True, kw_only=True)
class Returned:
    """Suggested images that came back with boxes.

    Attributes:
        dataset: The images and their labels.
        design: How they were chosen.
        notes: What was left out, a sentence each.
    """

    dataset: DetectionDataset
    design: Design
    notes: tuple[str, ...]


def suggest(images: Sequence[Compared], count: int, seed: int = 0) -> list[tuple[Compared, str]]:
    """Suggest images to label: the ``count`` that differ most, and as many at random among the others.

    Those at random are needed: of images chosen for their differences alone no fair score can be had.
    """
    order = sorted(range(len(images)), key=lambda place: (-images[place].difference, place))
    chosen, rest = order[:count], sorted(order[count:])
    drawn = np.random.default_rng(key("suggest", seed)).permutation(len(rest))[:count]
    return [
        *((images[place], _KINDS[0]) for place in chosen),
        *((images[rest[place]], _KINDS[1]) for place in sorted(drawn)),
    ]


def common_folder(paths: Sequence[Path]) -> Path:
    """Find the folder that all images lie below."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def to_coco(chosen: Sequence[tuple[Compared, str]], classes: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Write the suggested images as COCO without boxes; ``chosen`` says of each why."""
    images = []
    for number, (each, why) in enumerate(chosen, start=1):
        height, width = image_size(each.path)
        name = each.path.relative_to(folder).as_posix()
        images.append({"id": number, "file_name": name, "width": width, "height": height, "chosen": why})
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"info": {"description": RESEARCH_NOTICE}, "images": images, "categories": categories, "annotations": []}


def to_record(chosen: Sequence[tuple[Compared, str]], count: int, folder: Path) -> dict[str, Any]:
    """Write how the images were chosen among ``count``: labelling tools do not keep it."""
    most = sum(why == _KINDS[0] for _, why in chosen)
    return {
        "stand_for": dict(zip(_KINDS, (most, count - most), strict=True)),
        "images": {each.path.relative_to(folder).as_posix(): why for each, why in chosen},
    }


def read_returned(
    labels: Path, suggested: Path, folder: Path, models: Sequence[str], classes: tuple[str, ...]
) -> Returned:
    """Read suggested images back, with their boxes.

    Args:
        labels: The COCO file.
        suggested: Record of the comparison that suggested them.
        folder: The images.
        models: Names of both detectors.
        classes: Of both.

    Raises:
        UsageError: The record suggests nothing, or for other detectors.
        DataError: The labels cannot be read, there is none, or one kind of image is not labelled at all.
    """
    if labels.suffix != ".json":
        raise UsageError(f"--labels '{labels}' is no .json: give the suggested images as one COCO file.")
    record = _read_record(suggested, models)
    data = DetectionData(root=folder, format="coco", classes=classes)
    split = str(labels.resolve().with_suffix(""))  # a list's name is that of its index without the ending
    dataset = read_dataset(data, split, with_labels=True)
    names = {each.path.relative_to(folder).as_posix(): each for each in dataset.records}
    known: dict[str, str] = record["images"]
    kept = {name: each for name, each in names.items() if name in known}
    kinds = np.array([_KINDS.index(known[name]) for name in kept], np.int64)
    sizes = tuple(record["stand_for"][kind] for kind in _KINDS)
    for kind, size in enumerate(sizes):
        if size and not (kinds == kind).any():
            raise DataError(
                f"'{labels}' holds no image that was chosen as '{_KINDS[kind]}': a fair score takes both kinds. Label "
                "some of each."
            )
    if not any(len(each.boxes) for each in kept.values()):
        raise DataError(f"'{labels}' holds no box on the suggested images. Draw the objects in them first.")
    notes = []
    if other := len(names) - len(kept):
        notes.append(f"{other} images of '{labels.name}' were not suggested, and are left out.")
    if missing := len(known) - len(kept):
        notes.append(f"{missing} suggested images are not in '{labels.name}': the others of their kind stand for them.")
    return Returned(
        dataset=DetectionDataset(
            name=labels.stem, classes=dataset.classes, records=tuple(kept.values()), has_labels=True
        ),
        design=Design(kinds=kinds, sizes=sizes),
        notes=tuple(notes),
    )


def _read_record(path: Path, models: Sequence[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record: dict[str, Any] = content["suggested"]
        theirs = list(content["models"])
        sizes, images = record["stand_for"], record["images"]
        if not all(isinstance(sizes[kind], int) for kind in _KINDS) or set(images.values()) - set(_KINDS):
            raise ValueError("it says nothing of how images were chosen")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"'{path}' is no record of a comparison that suggested images ({error}). Give as --suggested the folder "
            "that compare --suggest wrote."
        ) from error
    if theirs != list(models):
        raise UsageError(f"'{path}' suggested images for {' and '.join(theirs)}, not for {' and '.join(models)}.")
    return record
