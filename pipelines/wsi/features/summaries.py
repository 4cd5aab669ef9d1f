"""Summaries of feature files: each file is read once in a process, and once in all processes of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.features.origin import origin_of
from vision_core.console import track
from vision_core.errors import InputError
from vision_core.files import Stamp, stamp
from vision_core.slides.features.adopted import files_behind, read_any_features
from vision_core.slides.features.hdf5 import H5Rows
from vision_core.training import distributed


@dataclass(frozen=True, kw_only=True)
class FileSummary:
    """Size, origin, sum and means of a feature file; ``is_flat``: all tiles looked at have the same features."""

    record: SlideRecord
    num_tiles: int
    dim: int
    origin: Mapping[str, Any]
    content: str
    means: tuple[float, ...] = ()
    is_flat: bool = False


_NUM_COMPARED = 8  # tiles of a file
_Stamps = tuple[Stamp, ...]
# Folds, seeds and stages of a command survey the same files, of which there may be hundreds of gigabytes.
_remembered: dict[Path, tuple[_Stamps, FileSummary]] = {}


def summarise(record: SlideRecord) -> FileSummary:
    """Read a feature file, unless this process has read it and its stamp is the same.

    Raises:
        InputError: It cannot be used.
    """
    place = record.path.absolute()
    stamps = _stamps(place)
    known, summary = _remembered.get(place, ((), None))
    if summary is None or not stamps or stamps != known:
        summary = _read(record)
        _remembered[place] = stamps, summary
    return replace(summary, record=record)


def summarise_all(
    records: Sequence[SlideRecord], *, by_first: bool = False
) -> tuple[list[FileSummary], dict[str, str]]:
    """Summarise each slide once.

    Args:
        records: Slides and their feature files; a slide may come several times.
        by_first: All processes of a training call this, and the first reads for all.

    Returns:
        The summaries, and what is wrong with the files of the other slides, by slide.
    """
    if not by_first:
        return _summarise_all(records)
    found = _summarise_all(records) if distributed.rank() == 0 else None
    told = distributed.broadcast_from_first(found)
    assert told is not None
    return told


def _summarise_all(records: Sequence[SlideRecord]) -> tuple[list[FileSummary], dict[str, str]]:
    summaries: list[FileSummary] = []
    bad: dict[str, str] = {}
    slides = {record.slide: record for record in records}
    for record in track(slides.values(), len(slides), "features", "file"):
        try:
            summaries.append(summarise(record))
        except InputError as error:
            bad[record.slide] = " ".join(error.problems)
    return summaries, bad


def _read(record: SlideRecord) -> FileSummary:
    features = read_any_features(record.path)
    places = np.unique(np.linspace(0, max(len(features) - 1, 0), _NUM_COMPARED).astype(int))
    some = [np.asarray(features.features[place : place + 1]) for place in places.tolist()] if len(features) > 1 else []
    if isinstance(features.features, H5Rows):
        features.features.close()
    return FileSummary(
        record=record,
        num_tiles=len(features),
        dim=features.dim,
        origin=origin_of(features.attributes),
        content=features.content,
        means=features.means,
        is_flat=bool(some) and all(bool((each == some[0]).all()) for each in some),
    )


def _stamps(path: Path) -> _Stamps:
    """Compute the stamps of all files that are read; empty where one of them cannot be."""
    try:
        return tuple(map(stamp, files_behind(path)))
    except InputError:
        return ()
