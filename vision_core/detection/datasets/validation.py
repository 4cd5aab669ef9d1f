"""Validation of a data set before a run: every image is decoded and compared with its labels."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from vision_core.detection.datasets.records import DetectionDataset, ImageRecord
from vision_core.errors import Checked, InputError
from vision_core.images.folders import suffix_notes
from vision_core.images.notes import gathered
from vision_core.images.untrusted import UntrustedImages

_SHOWN_SIZES = 3


def check_dataset(
    dataset: DetectionDataset,
    sample: int | None = None,
    *,
    max_megapixels: float = 100.0,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Decode every image once and compare it with its labels.

    Args:
        dataset: The images and labels.
        sample: Number of images, spread evenly over the list; None for all.
        max_megapixels: Larger images are faults.
        progress: Called after each image with the number done and the number to do.
    """
    chosen = _evenly_spaced(dataset.records, sample)
    faults: list[str] = []
    notes: dict[str, tuple[str, ...]] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    with UntrustedImages(max_megapixels=max_megapixels, key="data.max_megapixels") as images:
        for done, record in enumerate(chosen, start=1):
            problems, size, notes[record.path.name] = _check_image(record, images)
            faults += problems
            sizes.update([size] if size else [])
            if progress is not None:
                progress(done, len(chosen))
    return Checked(
        name=dataset.name,
        num_items=len(dataset),
        num_read=len(chosen),
        unit="images",
        facts=(_describe_sizes(sizes), *(_describe_labels(dataset) if dataset.has_labels else ("labels: not read",))),
        findings=dataset.noting(*gathered(notes)).findings,
        faults=tuple(faults),
    )


def _evenly_spaced(records: Sequence[ImageRecord], sample: int | None) -> Sequence[ImageRecord]:
    if sample is None or sample >= len(records):
        return records
    return [records[index * len(records) // sample] for index in range(sample)]


def _check_image(
    record: ImageRecord, images: UntrustedImages
) -> tuple[list[str], tuple[int, int] | None, tuple[str, ...]]:
    """Return faults, ``(height, width)`` if it can be read, and notes of an image."""
    try:
        pixels, notes = images.noted_image(record.path)
    except InputError as error:
        return list(error.problems), None, ()
    height, width = pixels.shape[:2]
    faults = []
    if record.size not in {None, (height, width)}:
        faults.append(f"'{record.path}' is {width} x {height} px, its labels say '{record.size}' (height, width).")
    beyond = int((record.boxes > [width, height, width, height]).any(axis=1).sum())
    if beyond:
        faults.append(f"'{record.path}': '{beyond}' boxes reach beyond its {width} x {height} px.")
    return faults, (height, width), (*suffix_notes(record.path), *notes)


def _describe_sizes(sizes: Mapping[tuple[int, int], int]) -> str:
    common = Counter(sizes).most_common(_SHOWN_SIZES)
    shown = ", ".join(f"{width} x {height} ({count})" for (height, width), count in common)
    more = f" and {len(sizes) - len(common)} other sizes" if len(sizes) > len(common) else ""
    return f"sizes: {shown or 'none'}{more}"


def _describe_labels(dataset: DetectionDataset) -> list[str]:
    counts = Counter(int(label) for record in dataset.records for label in record.labels)
    ignored = sum(int((record.difficult | record.crowd).sum()) for record in dataset.records)
    empty = sum(len(record.boxes) == 0 for record in dataset.records)
    return [
        f"boxes: {counts.total()}, of which difficult or crowd: {ignored}; images without boxes: {empty}",
        *(f"  {name}: {counts[label]}" for label, name in enumerate(dataset.classes)),
    ]
