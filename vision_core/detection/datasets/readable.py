"""Check before a run that the images of a list can be read."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vision_core.console import track
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import NUM_EXAMPLES, DataError, InputError
from vision_core.images.folders import suffix_notes
from vision_core.images.notes import gathered
from vision_core.images.reading import inspect_image
from vision_core.images.untrusted import UntrustedImages

_KEY = "data.max_megapixels"

Mark = tuple[Path, int, int]
Seen = dict[Mark, tuple[str, ...]]


def readable(dataset: DetectionDataset, data: DetectionData, seen: Seen) -> DetectionDataset:
    """Refuse a list with images that cannot be read, or leave these out; notes on the others are added.

    Under ``data.on_corrupt=refuse`` files are decoded whose header leaves open whether and how they can be read: of
    more than 8 bits a sample, or perhaps cut off. Under ``skip`` all are.

    Args:
        dataset: The list.
        data: Its settings.
        seen: Notes on the files that were found sound before, which this function keeps up to date.

    Raises:
        DataError: There are such images and ``data.on_corrupt`` refuses them, or no other is left.
    """
    is_refusing = data.on_corrupt == "refuse"
    chosen = [record.path for record in dataset.records if _mark(record.path) not in seen]
    faults, notes = _read(chosen, dataset.name, data.max_megapixels, decode_all=not is_refusing)
    seen.update((_mark(path), notes[path]) for path in notes)
    told = gathered({record.path.name: seen.get(_mark(record.path), ()) for record in dataset.records})
    dataset = dataset.noting(*told)
    if not faults:
        return dataset
    lines = list(faults.values())
    told_faults = f"'{dataset.name}': '{len(faults)}' of '{len(dataset)}' images cannot be read"
    if is_refusing:
        remedy = "Mend them or take them off the list, or set data.on_corrupt to 'skip' to leave them out."
        raise DataError([*lines[:NUM_EXAMPLES], f"{told_faults}. {remedy}"])
    if len(faults) == len(dataset):
        raise DataError(f"{told_faults}: {lines[0]}")
    kept = replace(
        dataset,
        records=tuple(record for record in dataset.records if record.path not in faults),
        left_out={**dataset.left_out, "images corrupt": len(faults)},
    )
    return kept.noting(f"IMAGES CORRUPT: {told_faults} and are left out: {', '.join(_names(faults))}")


def _read(
    paths: list[Path], name: str, max_megapixels: float, *, decode_all: bool
) -> tuple[dict[Path, str], dict[Path, tuple[str, ...]]]:
    """Read headers, and decode where these do not suffice; returns faults, and notes on all others."""
    faults: dict[Path, str] = {}
    notes: dict[Path, tuple[str, ...]] = {}
    doubtful = []
    for path in paths:
        try:
            told, is_open = inspect_image(path, max_megapixels, key=_KEY)
            notes[path] = (*suffix_notes(path), *told)
            doubtful += [path] if is_open or decode_all else []
        except InputError as error:
            faults[path] = error.problems[0]
    if doubtful:
        with UntrustedImages(max_megapixels=max_megapixels, key=_KEY) as images:
            for path in track(doubtful, len(doubtful), f"check {name}", "image"):
                try:
                    notes[path] = (*suffix_notes(path), *images.noted_image(path)[1])
                except InputError as error:
                    faults[path] = error.problems[0]
    return faults, {path: notes[path] for path in notes if path not in faults}


def _mark(path: Path) -> Mark:
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


def _names(paths: Iterable[Path]) -> list[str]:
    names = [path.name for path in paths]
    return names if len(names) <= NUM_EXAMPLES else [*names[:NUM_EXAMPLES], "..."]
