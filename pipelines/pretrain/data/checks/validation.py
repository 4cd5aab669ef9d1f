"""Validation of whole lists: faults, sizes, classes, patients, duplicates."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from pipelines.pretrain.data.checks.duplicates import Duplicates, Seen, find_duplicates, look, write_list
from pipelines.pretrain.data.checks.readable import Memory, outcomes, stamp
from pipelines.pretrain.data.checks.safe_reading import SafeReading, safe_reading
from pipelines.pretrain.data.index import UNKNOWN, Images
from vision_core.errors import Checked, EnvironmentFault, Finding
from vision_core.images.notes import gathered

_SHOWN_SIZES = 3


@dataclass(frozen=True, kw_only=True)
class CrossListFindings(Checked):
    """Findings between images and between lists; equal images are no faults.

    Attributes:
        list_path: List of the images that could be left out; None where it was not written.
    """

    list_path: Path | None

    def lines(self) -> list[str]:
        """Describe the findings, a line each."""
        texts = [each.text for each in self.findings]
        return [f"{self.name}:", *(texts or ["nothing equal, empty or shared was found"])]


def check_lists(
    lists: Sequence[Images],
    sample: int | None = None,
    *,
    cache: Path | None = None,
    on_item: Callable[[int, int], None] | None = None,
) -> tuple[list[Checked], CrossListFindings]:
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
    found: list[Checked] = []
    seen: list[Seen] = []
    for images, indices in zip(lists, chosen, strict=True):
        with safe_reading(images) as read:
            looking = _Looking(images, read)
            for index, fault, notes in outcomes(looking, indices):
                looking.note(index, fault, notes, memory)
                done += 1
                if on_item:
                    on_item(done, total)
        found.append(looking.checked(len(indices)))
        seen += looking.seen
        memory.write({str(images.pixels.path(index)): fault for index, fault in looking.faults.items()})
    duplicates = find_duplicates(sorted(seen, key=lambda each: (each.part, each.name)))
    return found, _between(lists, duplicates, _write_list(cache, lists, duplicates), len(seen), memory.told)


def _between(
    lists: Sequence[Images], duplicates: Duplicates, list_path: Path | None, num_read: int, corrupt: str
) -> CrossListFindings:
    """Describe what images and lists share; ``corrupt`` ends a sentence on where unreadable images are listed."""
    shared = shared_patients(lists)
    texts = [
        f"patients in both {first} and {second}: {count}. Scores on one after training on the other are too good."
        for (first, second), count in shared.items()
    ]
    texts += duplicates.lines()
    texts += [f"to leave equal and empty images out, edit and use data.leave_out={list_path}"] if list_path else []
    texts += [f"images that cannot be read are remembered{corrupt}"] if corrupt else []
    return CrossListFindings(
        name="between images and lists",
        num_items=num_read,
        num_read=num_read,
        unit="images",
        findings=tuple(Finding(severity="note", text=text) for text in texts),
        list_path=list_path,
    )


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

    def checked(self, num_read: int) -> Checked:
        """Return the findings of the list."""
        images = self._images
        notes = (*images.notes, *gathered(self._notes))
        return Checked(
            name=images.name,
            num_items=len(images),
            num_read=num_read,
            unit="images",
            facts=(_describe_sizes(self.sizes), *_counts(images), *_patients(images)),
            findings=tuple(Finding(severity="note", text=note) for note in notes),
            faults=tuple(self.faults[index] for index in sorted(self.faults)),
        )


def _describe_sizes(sizes: Counter[tuple[int, int]]) -> str:
    common = sizes.most_common(_SHOWN_SIZES)
    told = ", ".join(f"{width} x {height} ({count})" for (height, width), count in common) or "none"
    return f"sizes: {told}" + (f" and {len(sizes) - len(common)} other sizes" if len(sizes) > len(common) else "")


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
