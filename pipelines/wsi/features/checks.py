"""Checks of all slides or feature files before a long run."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipelines.wsi.cohort.cohort import CohortFindings
from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.cohort.same_slides import judge_same
from pipelines.wsi.features.slide_processing import SlideProcessor
from pipelines.wsi.features.summaries import FileSummary, summarise
from pipelines.wsi.features.survey import alike_notes, compare, flat_notes, same_features
from vision_core.errors import Checked, DataError, Findings


def check_list(
    name: str,
    records: Sequence[SlideRecord],
    classes: Sequence[str],
    check: Callable[[SlideRecord], int],
    progress: "CheckProgress",
) -> Checked:
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
    labels = Counter(classes[record.label] for record in records if record.label >= 0)
    facts = [f"labels: {', '.join(f'{number} {label}' for label, number in sorted(labels.items()))}"]
    if counts:
        facts.append(f"tiles: {sum(counts):,} in all, {int(np.median(counts)):,} a slide (median)")
    if empty := sum(not count for count in counts):
        facts.append(f"slides without tissue: {empty}")
    return Checked(
        name=name,
        num_items=len(records),
        num_read=len(chosen),
        unit="slides",
        facts=tuple(facts),
        faults=tuple(faults),
    )


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


class FeatureChecks:
    """Checks of feature files one by one, then of all together."""

    def __init__(self) -> None:
        self._summaries: list[FileSummary] = []

    def __call__(self, record: SlideRecord) -> int:
        """Read all rows of a file and return their number."""
        self._summaries.append(summarise(record))
        return self._summaries[-1].num_tiles

    def conclude(
        self, lists: Mapping[str, Sequence[SlideRecord]], classes: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """List problems and notes on all files together: another width or origin, the same slide twice."""
        same, notes = judge_same(same_features(self._summaries), lists, classes)
        return [*compare(self._summaries), *same], [*notes, *flat_notes(self._summaries), *alike_notes(self._summaries)]


def check_of_list(found: CohortFindings, others: Sequence[str], notes: Sequence[str]) -> Checked:
    """Report on the CSV: its own problems, and those of all files together."""
    findings = Findings()
    for problem in (*found.problems, *others):
        findings.refuse(problem)
    for note in (*found.notes, *notes):
        findings.note(note)
    rows = len(found.labels.slides)
    return Checked(name=str(found.labels.path), num_items=rows, num_read=rows, unit="rows", findings=findings.all())
