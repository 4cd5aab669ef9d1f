"""Validation of a data set before a run: every image is decoded and compared with its labels."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vision_core.detection.datasets.records import DetectionDataset, ImageRecord
from vision_core.errors import InputError
from vision_core.images.untrusted import UntrustedImages

_SHOWN_SIZES = 3


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Result of a validation.

    Attributes:
        name: Name of the data set.
        num_images: Images in the list.
        num_read: Images decoded, fewer if only a sample was.
        faults: One line per fault, with the file.
        boxes_per_class: Number of boxes by class; empty if labels were not read.
        num_difficult: Boxes that metrics ignore: marked difficult, or crowd regions.
        num_without_boxes: Images without a box; None if labels were not read.
        sizes: Images by ``(height, width)``, among those decoded.
        notes: Notes of the reader.
    """

    name: str
    num_images: int
    num_read: int
    faults: tuple[str, ...]
    boxes_per_class: dict[str, int]
    num_difficult: int
    num_without_boxes: int | None
    sizes: dict[tuple[int, int], int]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Format the result for the terminal."""
        common = Counter(self.sizes).most_common(_SHOWN_SIZES)
        sizes = ", ".join(f"{width} x {height} ({count})" for (height, width), count in common)
        more = f" and {len(self.sizes) - len(common)} other sizes" if len(self.sizes) > len(common) else ""
        head = f"{self.name}: {self.num_images} images, {self.num_read} read, {len(self.faults)} faults"
        notes = [f"note: {note}" for note in self.notes]
        return [head, f"sizes: {sizes or 'none'}{more}", *self._label_lines(), *notes, *self.faults]

    def _label_lines(self) -> list[str]:
        if self.num_without_boxes is None:
            return ["labels: not read"]
        counts = [f"  {name}: {count}" for name, count in self.boxes_per_class.items()]
        total = f"boxes: {sum(self.boxes_per_class.values())}, of which difficult or crowd: {self.num_difficult}"
        return [f"{total}; images without boxes: {self.num_without_boxes}", *counts]


def check_dataset(
    dataset: DetectionDataset,
    sample: int | None = None,
    *,
    max_megapixels: float = 100.0,
    progress: Callable[[int, int], None] | None = None,
) -> Validation:
    """Decode every image once and compare it with its labels.

    Args:
        dataset: The images and labels.
        sample: Number of images, spread evenly over the list; None for all.
        max_megapixels: Larger images are faults.
        progress: Called after each image with the number done and the number to do.
    """
    chosen = _evenly_spaced(dataset.records, sample)
    faults: list[str] = []
    sizes: Counter[tuple[int, int]] = Counter()
    with UntrustedImages(max_megapixels=max_megapixels, key="data.max_megapixels") as images:
        for done, record in enumerate(chosen, start=1):
            problems, size = _check_image(record, images)
            faults += problems
            sizes.update([size] if size else [])
            if progress is not None:
                progress(done, len(chosen))
    return Validation(
        name=dataset.name,
        num_images=len(dataset),
        num_read=len(chosen),
        faults=tuple(faults),
        boxes_per_class=_boxes_per_class(dataset) if dataset.has_labels else {},
        num_difficult=sum(int((record.difficult | record.crowd).sum()) for record in dataset.records),
        num_without_boxes=sum(len(record.boxes) == 0 for record in dataset.records) if dataset.has_labels else None,
        sizes=dict(sizes),
        notes=dataset.notes,
    )


def _evenly_spaced(records: Sequence[ImageRecord], sample: int | None) -> Sequence[ImageRecord]:
    if sample is None or sample >= len(records):
        return records
    return [records[index * len(records) // sample] for index in range(sample)]


def _check_image(record: ImageRecord, images: UntrustedImages) -> tuple[list[str], tuple[int, int] | None]:
    try:
        height, width = images.read_image(record.path).shape[:2]
    except InputError as error:
        return list(error.problems), None
    faults = []
    if record.size not in {None, (height, width)}:
        faults.append(f"'{record.path}' is {width} x {height} px, its labels say '{record.size}' (height, width).")
    beyond = int((record.boxes > [width, height, width, height]).any(axis=1).sum())
    if beyond:
        faults.append(f"'{record.path}': '{beyond}' boxes reach beyond its {width} x {height} px.")
    return faults, (height, width)


def _boxes_per_class(dataset: DetectionDataset) -> dict[str, int]:
    counts = Counter(int(label) for record in dataset.records for label in record.labels)
    return {name: counts[label] for label, name in enumerate(dataset.classes)}
