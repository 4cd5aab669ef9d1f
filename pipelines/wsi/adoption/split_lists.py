"""The list of an adopted data set, and the divisions that came with it."""

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
class Division:
    """One file of splits: the list of each slide."""

    number: int
    lists: Mapping[str, str]


def divisions(splits: Mapping[int, Path], labels: Labels) -> tuple[Division, ...]:
    """CLAM's files of splits, by their number.

    Raises:
        DataError: One cannot be read, or names a slide without a label.
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
        found.append(Division(number=number, lists=lists))
    if problems:
        raise DataError(problems)
    return tuple(found)


def write_lists(out: Path, labels: Labels, found: Sequence[Division]) -> list[str]:
    """Write ``labels.csv`` and a list per file of splits.

    One file of splits, and folds that are a true partition, stand in ``labels.csv`` itself.

    Returns:
        What was written, a sentence each.
    """
    folds = _folds(labels, found)
    whole = found[0].lists if len(found) == 1 and _covers(labels, found[0]) else None
    _write(out / LABELS, labels, {"fold": folds, "split": whole})
    told = [f"{len(labels.slides)} labels of '{labels.path}' stand in '{out / LABELS}'."]
    if folds:
        told.append(f"Its test lists are {len(found)} folds (column fold): train with data.folds={len(found)}.")
    if whole:
        told.append("Its split stands in the column split.")
        return told
    for each in found:
        path = out / f"labels-split-{each.number}.csv"
        _write(path, labels, {"split": each.lists})
    if found:
        told.append(f"{len(found)} splits stand in lists of their own: data.labels={out / 'labels-split-0.csv'}.")
    return told


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


def _covers(labels: Labels, division: Division) -> bool:
    return {slide.slide for slide in labels.slides} == set(division.lists)


def _folds(labels: Labels, found: Sequence[Division]) -> dict[str, str] | None:
    """The fold of each slide, where the test lists divide all slides among them."""
    tests = [(each.number, name) for each in found for name, part in each.lists.items() if part == "test"]
    slides: list[str] = [slide.slide for slide in labels.slides]
    if len(found) < 2 or sorted(name for _, name in tests) != sorted(slides):
        return None
    return {name: str(number) for number, name in tests}
