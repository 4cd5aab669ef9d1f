"""Checks of all slides or feature files before a long run."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.features.slide_processing import SlideProcessor
from vision_core.errors import DataError
from vision_core.slides.features.adopted import read_any_features
from vision_core.slides.features.files import check_finite


@dataclass(frozen=True, kw_only=True)
class ListCheck:
    """Result of checking a list of slides.

    Attributes:
        name: Name of the list.
        num_read: Number of slides read.
        faults: Faults, one line each.
        facts: Labels and tile counts, one line each.
    """

    name: str
    num_read: int
    faults: tuple[str, ...]
    facts: tuple[str, ...]

    def lines(self) -> list[str]:
        """Describe the result, one line each."""
        head = f"{self.name}: {self.num_read} slides read, {len(self.faults)} faults"
        return [head, *self.facts, *(f"  {fault}" for fault in self.faults)]


def check_list(
    name: str,
    records: Sequence[SlideRecord],
    classes: Sequence[str],
    check: Callable[[SlideRecord], int],
    progress: "CheckProgress",
) -> ListCheck:
    """Check every slide of a list, or an evenly spaced sample.

    Args:
        name: Name of the list.
        records: Its slides.
        classes: Names of the labels.
        check: Reads a slide and returns its number of tiles; a ``DataError`` or ``OSError`` is a fault.
        progress: Chooses the sample and reports progress.
    """
    chosen = progress.sample(records)
    faults: list[str] = []
    counts: list[int] = []
    for record in chosen:
        try:
            counts.append(check(record))
        except DataError as error:
            faults.extend(error.problems)
        except OSError as error:
            faults.append(f"'{record.path}' cannot be read: {(error.strerror or str(error)).lower()}.")
        progress.advance()
    labels = Counter(classes[record.label] for record in records)
    facts = [f"labels: {', '.join(f'{number} {label}' for label, number in sorted(labels.items()))}"]
    if counts:
        facts.append(f"tiles: {sum(counts):,} in all, {int(np.median(counts)):,} a slide (median)")
    if empty := sum(not count for count in counts):
        facts.append(f"slides without tissue: {empty}")
    return ListCheck(name=name, num_read=len(chosen), faults=tuple(faults), facts=tuple(facts))


class CheckProgress:
    """Sampler of slides, and progress over all lists.

    Args:
        sample: Number of evenly spaced slides of each list; None: all.
        sizes: Number of slides of each list.
        on_item: Called with the number of checked slides and their total.
    """

    def __init__(self, sample: int | None, sizes: Sequence[int], on_item: Callable[[int, int], None]) -> None:
        self._sample, self._on_item = sample, on_item
        self._total = sum(min(size, sample or size) for size in sizes)
        self._done = 0

    def sample(self, records: Sequence[SlideRecord]) -> list[SlideRecord]:
        """Choose evenly spaced slides."""
        count = min(len(records), self._sample or len(records))
        return [records[place] for place in np.linspace(0, len(records) - 1, count).round().astype(int)]

    def advance(self) -> None:
        """Count a slide as checked."""
        self._done += 1
        self._on_item(self._done, self._total)


def check_slide_file(processor: SlideProcessor, record: SlideRecord) -> int:
    """Find the tiles of a slide, read some of them and return their number."""
    return int(processor.inspect(record.path).work.get("tiles", 0))


def check_feature_file(record: SlideRecord) -> int:
    """Read all rows of a feature file and return their number."""
    features = read_any_features(record.path, check=False)
    check_finite(features.features, Path(record.path))
    return len(features)
