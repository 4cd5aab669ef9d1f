"""Images of the target that are kept out of adaptation, for numbers that adaptation does not flatter."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vision_core.detection.datasets.records import DetectionDataset, ImageRecord
from vision_core.randomness import key

_SHARE = 0.2
_FEWEST_KEPT_OUT = 8
_FEWEST = 40  # images from which some can be spared


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images to adapt to, and images to compare detectors on.

    Attributes:
        adapted: List to adapt to.
        compared: Files to compare on.
        is_kept_out: Whether these are others.
        notes: What was done, if anything was asked for.
    """

    adapted: DetectionDataset
    compared: tuple[Path, ...]
    is_kept_out: bool
    notes: tuple[str, ...] = ()


def hold_out(dataset: DetectionDataset, *, is_asked: bool | None) -> Split:
    """Keep a fifth of a list out of adaptation, at least 8 images, drawn by chance; below 40 images none.

    The draw depends on the number of images alone, so that all processes, seeds and methods have the same.

    Args:
        dataset: The list.
        is_asked: Else all of it is for both.
    """
    count = len(dataset.records)
    if not is_asked or count < _FEWEST:
        told = (
            f"verdict.select: of {count} images none is kept out of adaptation (from {_FEWEST} on a fifth is): numbers "
            "without labels are of the images adapted to, which flatters the later teachers.",
        )
        return Split(
            adapted=dataset, compared=_paths(dataset.records), is_kept_out=False, notes=told if is_asked else ()
        )
    spared = max(_FEWEST_KEPT_OUT, round(_SHARE * count))
    out = set(np.random.default_rng(key("held out", count)).permutation(count)[:spared].tolist())
    kept = [each for place, each in enumerate(dataset.records) if place not in out]
    told = (f"verdict.select: {spared} of {count} images are kept out of adaptation, for numbers without labels.",)
    return Split(
        adapted=replace(dataset, records=tuple(kept)),
        compared=_paths(each for place, each in enumerate(dataset.records) if place in out),
        is_kept_out=True,
        notes=told,
    )


def _paths(records: Iterable[ImageRecord]) -> tuple[Path, ...]:
    return tuple(record.path for record in records)
