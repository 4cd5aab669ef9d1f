"""Check before a run that the images of a list can be read."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vision_core.console import track
from vision_core.detection.datasets.records import NUM_EXAMPLES, DetectionDataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError, InputError
from vision_core.images.untrusted import UntrustedImages

_TAIL_BYTES = 64
_PNG = b"\x89PNG\r\n\x1a\n"
_UNCHECKED = (b"II*\0", b"MM\0*", b"P5", b"P6")  # neither size nor end tells whether the file is whole

Seen = set[tuple[Path, int, int]]


def readable(dataset: DetectionDataset, data: DetectionData, seen: Seen) -> DetectionDataset:
    """Refuse a list with images that cannot be read, or leave these out.

    Under ``data.on_corrupt=refuse`` files that do not end as their format does are decoded, under ``skip`` all are.

    Args:
        dataset: The list.
        data: Its settings.
        seen: Files that were decoded before, which this function keeps up to date.

    Raises:
        DataError: There are such images and ``data.on_corrupt`` refuses them, or no other is left.
    """
    is_refusing = data.on_corrupt == "refuse"
    chosen = [record.path for record in dataset.records if _mark(record.path) not in seen]
    chosen = [path for path in chosen if _may_be_cut(path)] if is_refusing else chosen
    if not chosen:
        return dataset
    faults = _faults(chosen, dataset.name, data.max_megapixels)
    seen.update(_mark(path) for path in chosen if path not in faults)
    if not faults:
        return dataset
    lines = list(faults.values())
    told = f"'{dataset.name}': '{len(faults)}' of '{len(dataset)}' images cannot be read"
    if is_refusing:
        remedy = "Mend them or take them off the list, or set data.on_corrupt to 'skip' to leave them out."
        raise DataError([*lines[:NUM_EXAMPLES], f"{told}. {remedy}"])
    if len(faults) == len(dataset):
        raise DataError(f"{told}: {lines[0]}")
    return replace(
        dataset,
        records=tuple(record for record in dataset.records if record.path not in faults),
        notes=(*dataset.notes, f"IMAGES CORRUPT: {told} and are left out: {', '.join(_names(faults))}"),
        left_out={**dataset.left_out, "images corrupt": len(faults)},
    )


def _faults(paths: list[Path], name: str, max_megapixels: float) -> dict[Path, str]:
    found = {}
    with UntrustedImages(max_megapixels=max_megapixels, key="data.max_megapixels") as images:
        for path in track(paths, len(paths), f"check {name}", "image"):
            try:
                images.read_image(path)
            except InputError as error:
                found[path] = error.problems[0]
    return found


def _may_be_cut(path: Path) -> bool:
    """Tell whether the end of a file is not that of its format; True also where the format is not known."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(len(_PNG))
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
    except PermissionError:
        return True
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if head == _PNG:
        return b"IEND" not in tail
    if head.startswith(b"RIFF"):
        return int.from_bytes(head[4:8], "little") + len(head) > size
    if head.startswith(b"BM"):
        return int.from_bytes(head[2:6], "little") > size
    return not head.startswith(_UNCHECKED)


def _mark(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


def _names(paths: Iterable[Path]) -> list[str]:
    names = [path.name for path in paths]
    return names if len(names) <= NUM_EXAMPLES else [*names[:NUM_EXAMPLES], "..."]
