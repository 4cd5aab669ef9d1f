"""The slides of a run: read from their CSV, split, and matched with their files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.wsi.cohort.file_matching import SlideRecord, match_files
from pipelines.wsi.cohort.folds import Places
from pipelines.wsi.cohort.labels import read_labels
from pipelines.wsi.cohort.splits import evaluated_places, refuse_absent_classes, split_slides, splitting_seed
from pipelines.wsi.config import WsiConfig, WsiData
from vision_core.csv_tables import to_csv
from vision_core.errors import ConfigError, DataError
from vision_core.files import write_atomic

SPLITS_FILE = "splits.csv"


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The slides of a training run with their files.

    Attributes:
        classes: In the order of the model's outputs.
        train: Training slides.
        val: Slides that choose epoch and threshold; the test slides under ``data.select_on_test``.
        test: Slides to report on.
        notes: Notes to the user, for the run and its report.
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
    """Read the CSV, split its slides, and match their files.

    All slides of the CSV are split, so that a missing file moves no other slide.

    Args:
        config: Its ``data``; the seed is ``data.split_seed`` or ``train.seed``.
        paths: All files of slides, or all of features.

    Raises:
        DataError: The CSV or its files have problems; a patient is on two lists; training or validation lacks a class.
        ConfigError: The requested split cannot be made.
    """
    labels = read_labels(labels_path(config.data), config.data.classes)
    split = split_slides(labels, config.data, splitting_seed(config))
    matched = match_files(labels, paths, config.data.on_missing)
    train, val, test = (_select(matched.records, places) for places in (split.train, split.val, split.test))
    refuse_absent_classes(labels, {"training": train, "validation": val})
    notes = (*labels.notes, *matched.notes, *split.notes, *_absent_class_notes(labels.classes, test))
    return Cohort(classes=labels.classes, train=train, val=val, test=test, notes=notes)


def read_evaluated(config: WsiConfig, paths: Iterable[Path], classes: Sequence[str]) -> EvaluatedSlides:
    """Read the slides to report on with their files.

    They are those of ``data.eval_split``, or all slides of a CSV without columns ``split`` and ``fold``.

    Args:
        config: As for ``read_cohort``.
        paths: All files of slides, or all of features.
        classes: Classes of the model.

    Raises:
        DataError: As for ``read_cohort``, or there is no slide.
        ConfigError: As for ``read_cohort``.
    """
    labels = read_labels(labels_path(config.data), classes)
    places, notes = evaluated_places(labels, config.data, splitting_seed(config))
    matched = match_files(labels, paths, config.data.on_missing)
    records = _select(matched.records, places)
    if not records:
        raise DataError(f"'{labels.path}' has no slide on the list '{config.data.eval_split}'. Set data.eval_split.")
    notes = (*labels.notes, *matched.notes, *notes, *_absent_class_notes(labels.classes, records))
    return EvaluatedSlides(classes=labels.classes, records=records, notes=notes)


def labels_path(data: WsiData) -> Path:
    """Return the path of the CSV of a run.

    Raises:
        ConfigError: ``data.labels`` and ``data.root`` are both empty.
    """
    if data.labels:
        return data.labels
    if not data.root:
        raise ConfigError("data.labels and data.root are both empty. Name the CSV of slides and labels as data.labels.")
    return data.root / "labels.csv"


def features_folder(data: WsiData) -> Path:
    """Return the folder of feature files, existing or to be written.

    Raises:
        ConfigError: ``data.features`` and ``data.root`` are both empty.
    """
    if data.features:
        return data.features
    if not data.root:
        raise ConfigError("data.features and data.root are both empty. Name the folder of feature files.")
    return data.root / "features"


def write_splits(path: Path, cohort: Cohort, data: WsiData) -> None:
    """Write the split as a CSV that ``data.labels`` accepts: slide, patient, label, split.

    A slide has one row; under ``data.select_on_test`` its list is the test list.
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


def _select(records: Sequence[SlideRecord], places: Places) -> tuple[SlideRecord, ...]:
    wanted = set(places)
    return tuple(record for record in records if record.place in wanted)


def _absent_class_notes(classes: Sequence[str], slides: Sequence[SlideRecord]) -> list[str]:
    """Note the classes that a test list lacks, which leave its AUC undefined."""
    present = {slide.label for slide in slides}
    absent = [name for each, name in enumerate(classes) if each not in present]
    if not slides or not absent:
        return []
    return [f"the test list has no slide of {', '.join(map(repr, absent))}: AUC is undefined there"]
