"""The slides of a run: read from their CSV, split, and matched with their files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.wsi.cohort.csv_table import refuse
from pipelines.wsi.cohort.file_matching import SlideRecord, match_all, match_files
from pipelines.wsi.cohort.folds import Places
from pipelines.wsi.cohort.labels import Labels, examine_labels, read_labels
from pipelines.wsi.cohort.same_slides import judge_same, same_slides
from pipelines.wsi.cohort.splits import Split, evaluated_places, refuse_absent_classes, split_slides, splitting_seed
from pipelines.wsi.config import WsiConfig, WsiData
from vision_core.csv_tables import to_csv
from vision_core.errors import ConfigError, DataError
from vision_core.files import write_atomic
from vision_core.slides.reading.listing import SlideListing

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

    def lists(self, data: WsiData) -> dict[str, tuple[SlideRecord, ...]]:
        """Return the records by the name of their list, each once."""
        return _named_lists(data, self.train, self.val, self.test)


@dataclass(frozen=True, kw_only=True)
class EvaluatedSlides:
    """The slides of ``data.eval_split`` with their files."""

    classes: tuple[str, ...]
    records: tuple[SlideRecord, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CohortFindings:
    """What a CSV and its files amount to, faults included.

    Attributes:
        labels: All rows.
        lists: Records by the name of their list; under ``""`` those that no list could be made of.
        problems: Sentences, each for which a training would be refused.
        notes: Notes to the user.
    """

    labels: Labels
    lists: Mapping[str, tuple[SlideRecord, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_cohort(config: WsiConfig, files: Iterable[Path] | SlideListing) -> Cohort:
    """Read the CSV, split its slides, and match their files.

    All slides of the CSV are split, so that a missing file moves no other slide.

    Args:
        config: Its ``data``; the seed is ``data.split_seed`` or ``train.seed``.
        files: All files of slides, or all of features.

    Raises:
        DataError: The CSV or its files have problems; a patient or a slide is on two lists; training or validation
            lacks a class.
        ConfigError: The requested split cannot be made.
    """
    labels = read_labels(labels_path(config.data), config.data.classes)
    split = split_slides(labels, config.data, splitting_seed(config))
    matched = match_files(labels, files, config.data.on_missing)
    train, val, test = (_select(matched.records, places) for places in (split.train, split.val, split.test))
    refuse_absent_classes(labels, {"training": train, "validation": val})
    lists = _named_lists(config.data, train, val, test)
    problems, same_notes = judge_same(_same(config, _each_once(lists)), lists, labels.classes)
    refuse(labels.path, problems)
    notes = (*labels.notes, *_listing_notes(files), *matched.notes, *split.notes, *same_notes)
    return Cohort(
        classes=labels.classes,
        train=train,
        val=val,
        test=test,
        notes=(*notes, *_absent_class_notes(labels.classes, test)),
    )


def examine_cohort(config: WsiConfig, files: Iterable[Path] | SlideListing) -> CohortFindings:
    """Find every problem that ``read_cohort`` would meet, one after the other, at once.

    Raises:
        DataError: The CSV cannot be read, or has no columns ``slide`` and ``label``.
    """
    labels, problems = examine_labels(labels_path(config.data), config.data.classes)
    matched, missing = match_all(labels, files, config.data.on_missing)
    split, unsplit = _try_split(labels, config)
    by_place = (_select(matched.records, places) for places in (split.train, split.val, split.test))
    lists = _named_lists(config.data, *by_place)
    rest = tuple(record for record in matched.records if record not in set(_each_once(lists)))
    same, same_notes = judge_same(_same(config, [*_each_once(lists), *rest]), lists, labels.classes)
    found = [f"'{labels.path}': {problem}" for problem in (*problems, *missing, *same)]
    return CohortFindings(
        labels=labels,
        lists=lists if any(lists.values()) else {"": matched.records},
        problems=(*found, *unsplit),
        notes=(*labels.notes, *_listing_notes(files), *matched.notes, *split.notes, *same_notes),
    )


def _try_split(labels: Labels, config: WsiConfig) -> tuple[Split, Sequence[str]]:
    """Split the rows with a sound label; return the problems where that is impossible."""
    sound = [place for place, slide in enumerate(labels.slides) if slide.label >= 0 and slide.slide]
    try:
        split = split_slides(
            replace(labels, slides=tuple(labels.slides[place] for place in sound)), config.data, splitting_seed(config)
        )
    except (DataError, ConfigError) as error:
        return Split(train=(), val=(), test=()), error.problems
    train, val, test = (tuple(sound[place] for place in part) for part in (split.train, split.val, split.test))
    return Split(train=train, val=val, test=test, notes=split.notes), ()


def _named_lists(
    data: WsiData, train: Sequence[SlideRecord], val: Sequence[SlideRecord], test: Sequence[SlideRecord]
) -> dict[str, tuple[SlideRecord, ...]]:
    """Name the lists of a run; under ``data.select_on_test`` validation and test are one."""
    lists = {data.split: tuple(train), data.val_split: () if data.select_on_test else tuple(val)}
    if data.eval_split:
        lists[data.eval_split] = tuple(test)
    return {name: records for name, records in lists.items() if records}


def _each_once(lists: Mapping[str, Sequence[SlideRecord]]) -> list[SlideRecord]:
    return list(dict.fromkeys(record for records in lists.values() for record in records))


def _same(config: WsiConfig, records: Sequence[SlideRecord]) -> list[tuple[SlideRecord, ...]]:
    """Find slides that are there twice; features are compared when they are read."""
    return same_slides(records) if config.data.format == "slides" else []


def _listing_notes(files: Iterable[Path] | SlideListing) -> list[str]:
    return files.notes(side_files=False) if isinstance(files, SlideListing) else []


def read_evaluated(config: WsiConfig, files: Iterable[Path] | SlideListing, classes: Sequence[str]) -> EvaluatedSlides:
    """Read the slides to report on with their files.

    They are those of ``data.eval_split``, or all slides of a CSV without columns ``split`` and ``fold``.

    Args:
        config: As for ``read_cohort``.
        files: All files of slides, or all of features.
        classes: Classes of the model.

    Raises:
        DataError: As for ``read_cohort``, or there is no slide.
        ConfigError: As for ``read_cohort``.
    """
    labels = read_labels(labels_path(config.data), classes)
    places, notes = evaluated_places(labels, config.data, splitting_seed(config))
    matched = match_files(labels, files, config.data.on_missing)
    records = _select(matched.records, places)
    if not records:
        raise DataError(f"'{labels.path}' has no slide on the list '{config.data.eval_split}'. Set data.eval_split.")
    others = tuple(record for record in matched.records if record not in set(records))
    lists = {"evaluated": records, "not evaluated": others}
    problems, same_notes = judge_same(_same(config, matched.records), lists, labels.classes)
    refuse(labels.path, problems)
    notes = (*labels.notes, *_listing_notes(files), *matched.notes, *notes, *same_notes)
    notes = (*notes, *_absent_class_notes(labels.classes, records))
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
