"""Every slide, or every file of features, looked at once before a night of work."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.features.slide_processing import SlideProcessor
from vision_core.errors import DataError
from vision_core.slides.features.adopted import read_any_features
from vision_core.slides.features.files import check_rows


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What reading a list of slides once has shown.

    Attributes:
        name: Of the list.
        num_read: Slides looked at.
        faults: One line each.
        facts: Sentences.
    """

    name: str
    num_read: int
    faults: tuple[str, ...]
    facts: tuple[str, ...]

    def lines(self) -> list[str]:
        """All of it in words."""
        head = f"{self.name}: {self.num_read} slides read, {len(self.faults)} faults"
        return [head, *self.facts, *(f"  {fault}" for fault in self.faults)]


def check_slides(
    name: str, records: Sequence[SlideRecord], classes: Sequence[str], look: Callable[[SlideRecord], int], step: "Step"
) -> Checked:
    """Look at every slide of a list, or at a sample.

    Args:
        name: Of the list.
        records: Its slides.
        classes: Names of the labels.
        look: Looks at one and returns its tiles; its ``DataError`` or ``OSError`` is a fault.
        step: Which of them, and who is told.
    """
    chosen = step.sample(records)
    faults: list[str] = []
    counts: list[int] = []
    for record in chosen:
        try:
            counts.append(look(record))
        except DataError as error:
            faults.extend(error.problems)
        except OSError as error:
            faults.append(f"'{record.path}' cannot be read: {(error.strerror or str(error)).lower()}.")
        step.done()
    labels = Counter(classes[record.label] for record in records)
    facts = [f"labels: {', '.join(f'{number} {label}' for label, number in sorted(labels.items()))}"]
    if counts:
        facts.append(f"tiles: {sum(counts):,} in all, {int(np.median(counts)):,} a slide in the middle of them")
    if empty := sum(not count for count in counts):
        facts.append(f"slides without tissue: {empty}")
    return Checked(name=name, num_read=len(chosen), faults=tuple(faults), facts=tuple(facts))


class Step:
    """Which slides of all lists are looked at, and the count of those done.

    Args:
        sample: How many evenly spaced slides of a list; none: all.
        total: Slides of all lists.
        on_item: Told how many of how many are done.
    """

    def __init__(self, sample: int | None, sizes: Sequence[int], on_item: Callable[[int, int], None]) -> None:
        self._sample, self._on_item = sample, on_item
        self._total = sum(min(size, sample or size) for size in sizes)
        self._done = 0

    def sample(self, records: Sequence[SlideRecord]) -> list[SlideRecord]:
        """Evenly spaced."""
        count = min(len(records), self._sample or len(records))
        return [records[place] for place in np.linspace(0, len(records) - 1, count).round().astype(int)]

    def done(self) -> None:
        """One more."""
        self._done += 1
        self._on_item(self._done, self._total)


def look_at_slide(processor: SlideProcessor, record: SlideRecord) -> int:
    """Open a slide, find tissue and tiles, read some of them; returns its tiles."""
    return int(processor.inspect(record.path).work.get("tiles", 0))


def look_at_features(record: SlideRecord) -> int:
    """Read every row of a file of features; returns its tiles."""
    features = read_any_features(record.path, check=False)
    check_rows(features.features, Path(record.path))
    return len(features)
