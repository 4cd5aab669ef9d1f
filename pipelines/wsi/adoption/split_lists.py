"""The CSV of an adopted data set, and the splits that came with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.wsi.adoption.foreign_folders import read_splits
from pipelines.wsi.cohort.labels import Labels
from vision_core.csv_tables import Cell, to_csv
from vision_core.errors import DataError
from vision_core.files import write_atomic

LABELS = "labels.csv"


@dataclass(frozen=True, kw_only=True)
class ClamSplit:
    """One of CLAM's split files: the list of each slide."""

    number: int
    lists: Mapping[str, str]


def read_clam_splits(splits: Mapping[int, Path], labels: Labels) -> tuple[ClamSplit, ...]:
    """Read CLAM's split files in the order of their numbers.

    Raises:
        DataError: A file cannot be read, or names a slide without a label.
    """
    found = []
    problems: list[str] = []
    known = {slide.slide for slide in labels.slides}
    for number, path in sorted(splits.items()):
        lists = read_splits(path)
        unknown = sorted(set(lists) - known)
        if unknown:
            problems.append(
                f"'{path}': '{len(unknown)}' slides have no label, first '{unknown[0]}'. Complete '{labels.path}'."
            )
        found.append(ClamSplit(number=number, lists=lists))
    if problems:
        raise DataError(problems)
    return tuple(found)


def write_lists(out: Path, labels: Labels, found: Sequence[ClamSplit]) -> list[str]:
    """Write ``labels.csv`` and a CSV for each split file.

    A single split, and test lists that partition the slides, become columns of ``labels.csv``.

    Returns:
        Summary, one sentence each.
    """
    folds = _folds(labels, found)
    covers_all = len(found) == 1 and {slide.slide for slide in labels.slides} == set(found[0].lists)
    split = found[0].lists if covers_all else None
    _write(out / LABELS, labels, {"fold": folds, "split": split})
    lines = [f"{len(labels.slides)} labels of '{labels.path}' stand in '{out / LABELS}'."]
    if folds:
        lines.append(f"Its test lists are {len(found)} folds (column fold): train with data.folds={len(found)}.")
    if split:
        lines.append("Its split stands in the column split.")
        return lines
    for each in found:
        path = out / f"labels-split-{each.number}.csv"
        _write(path, labels, {"split": each.lists})
    if found:
        lines.append(f"{len(found)} splits stand in lists of their own: data.labels={out / 'labels-split-0.csv'}.")
    return lines


def _write(path: Path, labels: Labels, added: Mapping[str, Mapping[str, str] | None]) -> None:
    columns = {name: values for name, values in added.items() if values}
    slides = [slide for slide in labels.slides if all(slide.slide in values for values in columns.values())]
    has_mpp = any(slide.mpp for slide in slides)
    header = ["slide", "patient", "label", *columns, *(["mpp"] if has_mpp else [])]
    rows: list[list[Cell]] = [
        [
            slide.slide,
            slide.patient,
            labels.classes[slide.label],
            *(values[slide.slide] for values in columns.values()),
            *([slide.mpp] if has_mpp else []),
        ]
        for slide in slides
    ]
    write_atomic(path, to_csv(header, rows))


def _folds(labels: Labels, found: Sequence[ClamSplit]) -> dict[str, str] | None:
    """Return the fold of each slide, where the test lists partition all slides."""
    tests = [(each.number, name) for each in found for name, part in each.lists.items() if part == "test"]
    slides: list[str] = [slide.slide for slide in labels.slides]
    if len(found) < 2 or sorted(name for _, name in tests) != sorted(slides):
        return None
    return {name: str(number) for number, name in tests}
