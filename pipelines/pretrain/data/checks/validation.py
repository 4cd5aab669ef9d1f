"""Validation of whole lists: faults, sizes, classes, patients, duplicates."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from pipelines.pretrain.data.checks.duplicates import Duplicates, Seen, find_duplicates, look, write_list
from pipelines.pretrain.data.checks.readable import Memory, outcomes, stamp
from pipelines.pretrain.data.checks.safe_reading import SafeReading, safe_reading
from pipelines.pretrain.data.index import UNKNOWN, Images
from vision_core.errors import EnvironmentFault
from vision_core.images.notes import gathered

_SHOWN_SIZES = 3


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Findings in one list.

    Attributes:
        images: The list.
        num_read: Number of decoded images; fewer than all if a sample was asked for.
        faults: A line for each image that cannot be read.
        sizes: Number of decoded images by ``(height, width)``.
    """

    images: Images
    num_read: int
    faults: tuple[str, ...]
    sizes: dict[tuple[int, int], int]

    def lines(self) -> list[str]:
        """Describe the findings, a line each."""
        images = self.images
        head = f"{images.name}: {len(images)} images, {self.num_read} read, {len(self.faults)} faults"
        common = Counter(self.sizes).most_common(_SHOWN_SIZES)
        told = ", ".join(f"{width} x {height} ({count})" for (height, width), count in common) or "none"
        more = f" and {len(self.sizes) - len(common)} other sizes" if len(self.sizes) > len(common) else ""
        notes = [f"note: {note}" for note in images.notes]
        return [head, f"sizes: {told}{more}", *_counts(images), *_patients(images), *notes, *self.faults]


@dataclass(frozen=True, kw_only=True)
class CrossListFindings:
    """Findings between images and between lists.

    Attributes:
        num_read: Number of compared images.
        shared_patients: Number of patients that two lists share, by the names of the lists.
        duplicates: Equal and constant images.
        list_path: List of the images that could be left out; None where it was not written.
        corrupt: Where unreadable images are listed, as the end of a sentence; empty without such.
        faults: Always empty: equal images are no faults.
    """

    num_read: int
    shared_patients: dict[tuple[str, str], int]
    duplicates: Duplicates
    list_path: Path | None
    corrupt: str = ""
    faults: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Describe the findings, a line each."""
        shared = [
            f"patients in both {first} and {second}: {count}. Scores on one after training on the other are too good."
            for (first, second), count in self.shared_patients.items()
        ]
        found = [*shared, *self.duplicates.lines()]
        if self.list_path:
            found.append(f"to leave equal and empty images out, edit and use data.leave_out={self.list_path}")
        found += [f"images that cannot be read are remembered{self.corrupt}"] if self.corrupt else []
        return ["between images and lists:", *(found or ["nothing equal, empty or shared was found"])]


def check_lists(
    lists: Sequence[Images],
    sample: int | None = None,
    *,
    cache: Path | None = None,
    on_item: Callable[[int, int], None] | None = None,
) -> list[Validation | CrossListFindings]:
    """Decode every image once; returns the findings of each list and those between them.

    Args:
        lists: Training list, validation list and so on.
        sample: Number of images of each list, spread evenly; None for all.
        cache: Folder of remembered results, where the list of images to leave out is written.
        on_item: Called after each image with how many of how many are done.
    """
    chosen = [_spread(len(images), sample) for images in lists]
    total, done = sum(map(len, chosen)), 0
    memory = Memory(cache)
    found: list[Validation | CrossListFindings] = []
    seen: list[Seen] = []
    for images, indices in zip(lists, chosen, strict=True):
        with safe_reading(images) as read:
            looking = _Looking(images, read)
            for index, fault, notes in outcomes(looking, indices):
                looking.note(index, fault, notes, memory)
                done += 1
                if on_item:
                    on_item(done, total)
        found.append(looking.validation(len(indices)))
        seen += looking.seen
        memory.write({str(images.pixels.path(index)): fault for index, fault in looking.faults.items()})
    duplicates = find_duplicates(sorted(seen, key=lambda each: (each.part, each.name)))
    together = CrossListFindings(
        num_read=len(seen),
        shared_patients=shared_patients(lists),
        duplicates=duplicates,
        list_path=_write_list(cache, lists, duplicates),
        corrupt=memory.told,
    )
    return [*found, together]


def shared_patients(lists: Sequence[Images]) -> dict[tuple[str, str], int]:
    """Count the known patients that each two lists share, by their names."""
    known = {images.name: set(images.patients[images.patients != UNKNOWN].tolist()) for images in lists}
    shared = {pair: len(known[pair[0]] & known[pair[1]]) for pair in combinations(known, 2)}
    return {pair: count for pair, count in shared.items() if count}


class _Looking:
    """Collector of the findings in a list whose images several threads read."""

    def __init__(self, images: Images, read: SafeReading) -> None:
        self._images, self._read = images, read
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.seen: list[Seen] = []
        self.faults: dict[int, str] = {}
        self._notes: dict[str, tuple[str, ...]] = {}

    def __call__(self, index: int) -> tuple[str, ...]:
        """Read an image and return its notes; called by a thread."""
        pixels, notes = self._read.noted(index)
        self.seen.append(look(self._images, index, pixels))
        self.sizes[pixels.shape[0], pixels.shape[1]] += 1
        return notes

    def note(self, index: int, fault: str, notes: tuple[str, ...], memory: Memory) -> None:
        """Record the outcome of an image."""
        if fault:
            self.faults[index] = fault
            return
        if notes:
            self._notes[self._images.pixels.name(index)] = notes
        if not self._images.pixels.is_whole:
            memory.add(stamp(self._images.pixels.path(index)), "decode", notes)

    def validation(self, num_read: int) -> Validation:
        """Return the findings of the list."""
        faults = tuple(self.faults[index] for index in sorted(self.faults))
        images = replace(self._images, notes=(*self._images.notes, *gathered(self._notes)))
        return Validation(images=images, num_read=num_read, faults=faults, sizes=dict(self.sizes))


def _spread(total: int, sample: int | None) -> list[int]:
    wanted = total if sample is None else min(sample, total)
    return [number * total // wanted for number in range(wanted)]


def _counts(images: Images) -> list[str]:
    classes = [f"  {name}: {count}" for name, count in zip(images.classes, images.class_counts, strict=True)]
    kinds = Counter(modality for modality in images.modalities.tolist() if modality)
    modalities = (
        [f"modalities: {', '.join(f'{name} {count}' for name, count in sorted(kinds.items()))}"] if kinds else []
    )
    unknown = len(images) - sum(kinds.values())
    if modalities and unknown:
        modalities = [f"{modalities[0]}, unknown {unknown}"]
    many = " (an image may have several, or none)" if images.is_multi_label else ""
    return [*modalities, f"classes: {len(images.classes)}{many}", *classes]


def _patients(images: Images) -> list[str]:
    known = images.patients[images.patients != UNKNOWN]
    if not known.size:
        return ["patients: no numbers are known, so overlap between lists cannot be seen"]
    return [f"patients: {len(np.unique(known))} in {len(known)} of {len(images)} images"]


def _write_list(cache: Path | None, lists: Sequence[Images], duplicates: Duplicates) -> Path | None:
    if cache is None or not (duplicates.groups or duplicates.constant):
        return None
    path = cache / f"leave-out-{lists[0].name.partition(':')[0]}.txt"
    try:
        write_list(path, duplicates)
    except (EnvironmentFault, OSError):
        return None
    return path
