"""Validation of a data set before a run: every image is decoded and compared with its labels."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from vision_core.detection.datasets.records import DetectionDataset, ImageRecord
from vision_core.errors import Checked, InputError, UsageError
from vision_core.files import stamp, text_of, write_atomic
from vision_core.images.folders import suffix_notes
from vision_core.images.notes import gathered
from vision_core.images.untrusted import UntrustedImages

_SHOWN_SIZES = 3
_MOST_WORKERS = 4
_VERSION = 1

_Read = tuple[tuple[int, int], tuple[str, ...]]  # (height, width) and notes


@dataclass
class SoundImages:
    """Memory of images that could be decoded, known by path and stamp.

    Args:
        path: JSON file that keeps it; None: nothing does.

    Raises:
        UsageError: The file is another one, and is not replaced.
    """

    path: Path | None = None
    _found: dict[str, list[Any]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            is_ours = content["sound_images"] == _VERSION
            self._found = dict(content["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"--cache '{self.path}' is no such file of validate, and stays. Give another.") from error
        if not is_ours:
            raise UsageError(f"--cache '{self.path}' is of another version. Take it away, or give another.")

    def recall(self, path: Path, max_megapixels: float) -> _Read | None:
        """Return what was read of an image that has not changed since; None for any other.

        Raises:
            InputError: The file is gone, or cannot be opened.
        """
        known = self._found.get(text_of(path.absolute()))
        if known is None or known[0] != stamp(path).model_dump() or known[1] * known[2] > max_megapixels * 1e6:
            return None
        return (known[1], known[2]), tuple(known[3])

    def remember(self, path: Path, read: _Read) -> None:
        """Keep what was read of an image."""
        (height, width), notes = read
        self._found[text_of(path.absolute())] = [stamp(path).model_dump(), height, width, list(notes)]

    def save(self) -> None:
        """Write the file."""
        if self.path:
            write_atomic(self.path, json.dumps({"sound_images": _VERSION, "files": self._found}, ensure_ascii=False))


def check_dataset(  # noqa: PLR0913 (what to read, how, and whom to tell)
    dataset: DetectionDataset,
    sample: int | None = None,
    *,
    max_megapixels: float = 100.0,
    workers: int | None = None,
    sound: SoundImages | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Decode every image once and compare it with its labels.

    Args:
        dataset: The images and labels.
        sample: Number of images, spread evenly over the list; None for all.
        max_megapixels: Larger images are faults.
        workers: Images decoded at a time, each in a process of its own; None: one for each processor, up to four.
        sound: Images that need not be decoded again.
        progress: Called after each image with the number done and the number to do.
    """
    chosen = _evenly_spaced(dataset.records, sample)
    sound = sound or SoundImages()
    faults: list[str] = []
    notes: dict[str, tuple[str, ...]] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    try:
        for done, (record, read) in enumerate(_decoded(chosen, max_megapixels, workers, sound), start=1):
            if isinstance(read, InputError):
                faults += read.problems
            else:
                sizes.update([read[0]])
                notes[record.path.name] = (*suffix_notes(record.path), *read[1])
                faults += _label_faults(record, read[0])
                sound.remember(record.path, read)
            if progress is not None:
                progress(done, len(chosen))
    finally:
        sound.save()
    facts, numbers = _describe_labels(dataset) if dataset.has_labels else (["labels: not read"], {})
    return Checked(
        name=dataset.name,
        num_items=len(dataset),
        num_read=len(chosen),
        unit="images",
        facts=(_describe_sizes(sizes), *facts),
        numbers={"sizes": {f"{width}x{height}": count for (height, width), count in sizes.items()}, **numbers},
        findings=dataset.noting(*gathered(notes)).findings,
        faults=tuple(faults),
    )


def _decoded(
    records: Sequence[ImageRecord], max_megapixels: float, workers: int | None, sound: SoundImages
) -> Iterator[tuple[ImageRecord, _Read | InputError]]:
    """Decode images, several at a time, and return what was read of them in their order."""
    count = min(workers or min(os.cpu_count() or 1, _MOST_WORKERS), max(len(records), 1))
    free: SimpleQueue[UntrustedImages] = SimpleQueue()
    readers = [UntrustedImages(max_megapixels=max_megapixels, key="data.max_megapixels") for _ in range(count)]
    for reader in readers:
        free.put(reader)

    def read(record: ImageRecord) -> _Read | InputError:
        reader = free.get()
        try:
            return sound.recall(record.path, max_megapixels) or reader.noted_size(record.path)
        except InputError as error:
            return error
        finally:
            free.put(reader)

    with ThreadPoolExecutor(count) as threads:
        try:
            yield from zip(records, threads.map(read, records), strict=True)
        finally:
            threads.shutdown(cancel_futures=True)
            for reader in readers:
                reader.close()


def _evenly_spaced(records: Sequence[ImageRecord], sample: int | None) -> Sequence[ImageRecord]:
    if sample is None or sample >= len(records):
        return records
    return [records[index * len(records) // sample] for index in range(sample)]


def _label_faults(record: ImageRecord, size: tuple[int, int]) -> list[str]:
    """Compare the labels of an image with its ``(height, width)``."""
    height, width = size
    faults = []
    if record.size not in {None, size}:
        faults.append(f"'{record.path}' is {width} x {height} px, its labels say '{record.size}' (height, width).")
    beyond = int((record.boxes > [width, height, width, height]).any(axis=1).sum())
    if beyond:
        faults.append(f"'{record.path}': '{beyond}' boxes reach beyond its {width} x {height} px.")
    return faults


def _describe_sizes(sizes: Mapping[tuple[int, int], int]) -> str:
    common = Counter(sizes).most_common(_SHOWN_SIZES)
    shown = ", ".join(f"{width} x {height} ({count})" for (height, width), count in common)
    more = f" and {len(sizes) - len(common)} other sizes" if len(sizes) > len(common) else ""
    return f"sizes: {shown or 'none'}{more}"


def _describe_labels(dataset: DetectionDataset) -> tuple[list[str], dict[str, Any]]:
    """Describe the labels for people, and for programs."""
    counts = Counter(int(label) for record in dataset.records for label in record.labels)
    by_name = {name: counts[label] for label, name in enumerate(dataset.classes)}
    numbers = {
        "boxes": counts.total(),
        "difficult": sum(int(record.difficult.sum()) for record in dataset.records),
        "crowd": sum(int(record.crowd.sum()) for record in dataset.records),
        "images without boxes": sum(len(record.boxes) == 0 for record in dataset.records),
        "left out": dict(dataset.left_out),
        "classes": by_name,
    }
    ignored = sum(int((record.difficult | record.crowd).sum()) for record in dataset.records)
    told = [
        f"boxes: {counts.total()}, of which difficult or crowd: {ignored}; images without boxes: "
        f"{numbers['images without boxes']}",
        *(f"  {name}: {count}" for name, count in by_name.items()),
    ]
    return told, numbers
