"""The slides of a run: the list read, divided, and joined with its files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.wsi.cohort.file_matching import SlideRecord, match_files
from pipelines.wsi.cohort.folds import Places
from pipelines.wsi.cohort.labels import read_labels
from pipelines.wsi.cohort.splits import divide, division_seed, evaluated_places, refuse_absent_classes
from pipelines.wsi.config import WsiConfig, WsiData
from vision_core.csv_tables import to_csv
from vision_core.errors import ConfigError, DataError
from vision_core.files import write_atomic

DIVISION = "splits.csv"


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The slides of a training run with their files.

    Attributes:
        classes: In the order of the model's outputs.
        train: To learn from.
        val: To choose epoch and threshold on; the test list itself under ``data.select_on_test``.
        test: To report on.
        notes: What a person should know, for the run and its report.
    """

    classes: tuple[str, ...]
    train: tuple[SlideRecord, ...]
    val: tuple[SlideRecord, ...]
    test: tuple[SlideRecord, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluatedSlides:
    """The slides of ``data.eval_split`` with their files."""

    classes: tuple[str, ...]
    records: tuple[SlideRecord, ...]
    notes: tuple[str, ...]


def read_cohort(config: WsiConfig, paths: Iterable[Path]) -> Cohort:
    """Read the list, divide it, and find the files of its slides.

    The division is of the list as it stands, so that a slide whose file is missing changes nothing for the others.

    Args:
        config: Its ``data``; the seed is ``data.split_seed`` or ``train.seed``.
        paths: All files of slides, or all of features.

    Raises:
        DataError: The list or its files have problems; a patient is on two lists; training or validation lacks a class.
        ConfigError: The division asked for cannot be made.
    """
    labels = read_labels(labels_path(config.data), config.data.classes)
    division = divide(labels, config.data, division_seed(config))
    matched = match_files(labels, paths, config.data.on_missing)
    train, val, test = (_of(matched.records, places) for places in (division.train, division.val, division.test))
    refuse_absent_classes(labels, {"training": train, "validation": val})
    notes = (*labels.notes, *matched.notes, *division.notes, *_undefined(labels.classes, test))
    return Cohort(classes=labels.classes, train=train, val=val, test=test, notes=notes)


def read_evaluated(config: WsiConfig, paths: Iterable[Path], classes: Sequence[str]) -> EvaluatedSlides:
    """The slides to report on: of ``data.eval_split``, or all of a list that divides nothing.

    Args:
        config: As of ``read_cohort``.
        paths: All files of slides, or all of features.
        classes: Of the model.

    Raises:
        DataError: As of ``read_cohort``, or there is no slide.
        ConfigError: As of ``read_cohort``.
    """
    labels = read_labels(labels_path(config.data), classes)
    places, notes = evaluated_places(labels, config.data, division_seed(config))
    matched = match_files(labels, paths, config.data.on_missing)
    records = _of(matched.records, places)
    if not records:
        raise DataError(f"'{labels.path}' has no slide on the list '{config.data.eval_split}'. Set data.eval_split.")
    told = (*labels.notes, *matched.notes, *notes, *_undefined(labels.classes, records))
    return EvaluatedSlides(classes=labels.classes, records=records, notes=told)


def labels_path(data: WsiData) -> Path:
    """The CSV of a run.

    Raises:
        ConfigError: Neither it nor a folder is named.
    """
    if data.labels:
        return data.labels
    if not data.root:
        raise ConfigError("data.labels and data.root are both empty. Name the CSV of slides and labels as data.labels.")
    return data.root / "labels.csv"


def features_folder(data: WsiData) -> Path:
    """Where feature files are, or are to be written.

    Raises:
        ConfigError: Neither it nor a folder is named.
    """
    if data.features:
        return data.features
    if not data.root:
        raise ConfigError("data.features and data.root are both empty. Name the folder of feature files.")
    return data.root / "features"


def write_division(path: Path, cohort: Cohort, data: WsiData) -> None:
    """The division as a CSV that is itself a list for ``data.labels``: slide, patient, label, split.

    A slide has one row; where validation and test are one list, it is the one that is reported on.
    """
    named = {data.split: cohort.train}
    if not data.select_on_test:
        named[data.val_split] = cohort.val
    if data.eval_split:
        named[data.eval_split] = cohort.test
    rows = [
        [record.slide, record.patient, cohort.classes[record.label], name]
        for name, records in named.items()
        for record in records
    ]
    write_atomic(path, to_csv(["slide", "patient", "label", "split"], rows))


def _of(records: Sequence[SlideRecord], places: Places) -> tuple[SlideRecord, ...]:
    wanted = set(places)
    return tuple(record for record in records if record.place in wanted)


def _undefined(classes: Sequence[str], slides: Sequence[SlideRecord]) -> list[str]:
    """A test list without a class is legal; what cannot be computed is said, not set to a half."""
    there = {slide.label for slide in slides}
    absent = [name for each, name in enumerate(classes) if each not in there]
    if not slides or not absent:
        return []
    return [f"the test list has no slide of {', '.join(map(repr, absent))}: AUC is undefined there"]
