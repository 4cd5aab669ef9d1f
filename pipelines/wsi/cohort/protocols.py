"""Lists of slides by ``data.protocol``: as the CSV states, stratified by patient, or as published."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.wsi.cohort.csv_table import refuse
from pipelines.wsi.cohort.folds import Places, balanced_folds, draw_share, r1_folds, r2_folds
from pipelines.wsi.cohort.labels import Labels
from pipelines.wsi.config import WsiData
from vision_core.errors import ConfigError

_TEST_SHARE = 0.2  # of data.protocol=stratified without folds
_SYNONYMS = {
    "train": ("training",),
    "val": ("valid", "validation", "dev", "tune"),
    "test": ("testing",),
}


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Rows of a CSV by the name of their list, and notes to the user."""

    by_name: Mapping[str, Places]
    notes: tuple[str, ...]


def make_lists(labels: Labels, data: WsiData, seed: int) -> Lists:
    """Make the lists named by ``data.split``, ``val_split`` and ``eval_split``.

    Raises:
        DataError: The CSV names lists that are not known, or a published protocol does not fit it.
        ConfigError: The CSV lacks the requested column or folds.
    """
    match data.protocol:
        case "given":
            lists, notes = _given(labels, data, seed)
        case "stratified":
            lists, notes = _stratified(labels, data, seed)
        case "r1" | "r2":
            lists, notes = _published(labels, data, seed)
    return Lists(by_name=lists, notes=tuple(notes))


@dataclass(frozen=True, kw_only=True)
class _Patient:
    """A patient with all slides: the unit that is split."""

    name: str
    places: Places
    labels: frozenset[int]
    label: int


def _patients(labels: Labels, places: Iterable[int]) -> list[_Patient]:
    """Group slides by patient, in the order of first slides.

    The class of a patient is that of most slides; of equals, the last class.
    """
    grouped: dict[str, list[int]] = {}
    for place in places:
        grouped.setdefault(labels.slides[place].patient, []).append(place)
    found = []
    for name, own in grouped.items():
        counts = Counter(labels.slides[place].label for place in own)
        label = max(counts, key=lambda each: (counts[each], each))
        found.append(_Patient(name=name, places=tuple(own), labels=frozenset(counts), label=label))
    return found


def _slides_of(patients: Sequence[_Patient], chosen: Iterable[int]) -> Places:
    return tuple(sorted(place for each in chosen for place in patients[each].places))


def _test_name(data: WsiData) -> str:
    """Name the held-out list; empty where ``data.eval_split`` is another list."""
    return "" if data.eval_split in {data.split, data.val_split} else data.eval_split or ""


def _given(labels: Labels, data: WsiData, seed: int) -> tuple[dict[str, Places], list[str]]:
    if data.fold is not None:
        return _given_folds(labels, data, seed)
    if "split" not in labels.columns:
        remedy = "Set data.folds to their number" if "fold" in labels.columns else "Add it, or a column 'fold'"
        raise ConfigError(f"'{labels.path}' has no column 'split'. {remedy}, or set data.protocol=stratified.")
    lists = _by_split(labels, data)
    used = {data.split, data.val_split, data.eval_split}
    notes = [f"list '{name}' is not used here: {len(own)} slides" for name, own in lists.items() if name not in used]
    if data.val_split in lists or data.split not in lists or data.select_on_test:
        return lists, notes
    return _with_validation(labels, data, lists, seed), [*notes, _validation_note(data)]


def _by_split(labels: Labels, data: WsiData) -> dict[str, Places]:
    names = {name.casefold(): name for name in (data.split, data.val_split, data.eval_split) if name}
    for name, others in _SYNONYMS.items():
        if name in names:
            names = {other: names[name] for other in others} | names
    lists: dict[str, list[int]] = {}
    problems = []
    for place, slide in enumerate(labels.slides):
        near = difflib.get_close_matches(slide.split, names, n=1, cutoff=0.7)
        if not slide.split:
            problems.append(f"row {slide.row}: slide '{slide.slide}' is on no list. Complete the column 'split'.")
        elif slide.split not in names and near:
            problems.append(
                f"row {slide.row}: split '{slide.split}' is not known; did you mean '{near[0]}'? Correct it."
            )
        lists.setdefault(names.get(slide.split, slide.split), []).append(place)
    refuse(labels.path, problems)
    return {name: tuple(places) for name, places in lists.items()}


def _given_folds(labels: Labels, data: WsiData, seed: int) -> tuple[dict[str, Places], list[str]]:
    if "fold" not in labels.columns:
        raise ConfigError(f"'{labels.path}' has no column 'fold'. Add it, or set data.protocol=stratified.")
    numbers = sorted({slide.fold for slide in labels.slides if slide.fold is not None})
    if data.folds and len(numbers) != data.folds:
        raise ConfigError(
            f"'{labels.path}' has '{len(numbers)}' folds ({', '.join(map(str, numbers))}), not '{data.folds}'. "
            f"Set data.folds={len(numbers)}."
        )
    if (data.fold or 0) >= len(numbers):
        raise ConfigError(f"data.fold is '{data.fold}'; '{labels.path}' has '{len(numbers)}' folds, counted from 0.")
    _refuse_patients_in_two_folds(labels)
    number = numbers[data.fold or 0]
    lists = {
        data.split: tuple(place for place, slide in enumerate(labels.slides) if slide.fold != number),
        _test_name(data): tuple(place for place, slide in enumerate(labels.slides) if slide.fold == number),
    }
    notes = [] if number == data.fold else [f"fold {data.fold} of the run is fold {number} of the list"]
    if data.select_on_test:
        return lists, notes
    return _with_validation(labels, data, lists, seed), [*notes, _validation_note(data)]


def _refuse_patients_in_two_folds(labels: Labels) -> None:
    """Refuse patients with slides in two folds, who would be in training and test."""
    first: dict[str, int] = {}
    problems = []
    for place, slide in enumerate(labels.slides):
        before = labels.slides[first.setdefault(slide.patient, place)]
        if before.fold != slide.fold:
            problems.append(
                f"patient '{slide.patient}' is in fold {before.fold} (row {before.row}) and in fold {slide.fold} "
                f"(row {slide.row}). Put all slides of a patient into one fold."
            )
    refuse(labels.path, problems)


def _with_validation(labels: Labels, data: WsiData, lists: Mapping[str, Places], seed: int) -> dict[str, Places]:
    """Move ``data.val_share`` of the training patients to the validation list."""
    patients = _patients(labels, lists[data.split])
    classes = [patient.label for patient in patients]
    chosen = set(draw_share(classes, range(len(classes)), data.val_share, "val", seed, data.fold))
    rest = set(range(len(classes))) - chosen
    return {**lists, data.split: _slides_of(patients, rest), data.val_split: _slides_of(patients, chosen)}


def _validation_note(data: WsiData) -> str:
    return f"{100 * data.val_share:g} % of the training patients of each class validate (data.val_share)"


def _stratified(labels: Labels, data: WsiData, seed: int) -> tuple[dict[str, Places], list[str]]:
    patients = _patients(labels, range(len(labels.slides)))
    classes = [patient.label for patient in patients]
    if data.folds:
        test = balanced_folds(classes, data.folds, seed)[data.fold or 0]
        note = f"fold {data.fold} of {data.folds}, dealt by patient and class (seed {seed})"
    else:
        test = draw_share(classes, range(len(classes)), _TEST_SHARE if data.eval_split else 0.0, "test", seed)
        note = f"{100 * _TEST_SHARE:g} % of the patients of each class are held out (seed {seed})"
    lists = {
        data.split: _slides_of(patients, set(range(len(classes))) - set(test)),
        _test_name(data): _slides_of(patients, test),
    }
    notes = [note] if test else []
    if data.select_on_test:
        return lists, notes
    return _with_validation(labels, data, lists, seed), [*notes, _validation_note(data)]


def _published(labels: Labels, data: WsiData, seed: int) -> tuple[dict[str, Places], list[str]]:
    patients = _patients(labels, range(len(labels.slides)))
    classes = [patient.label for patient in patients]
    _check_published(labels, patients, data)
    make = r1_folds if data.protocol == "r1" else r2_folds
    # Published code without a validation list chose on the test fold and trained on all other folds.
    val_share = 0.0 if data.select_on_test else data.val_share
    train, val, test = make(classes, data.folds, val_share, seed)[data.fold or 0]
    lists = {data.split: train, data.val_split: val, _test_name(data): test}
    note = f"fold {data.fold} of {data.folds} of the published protocol {data.protocol} (seed {seed})"
    return {name: _slides_of(patients, places) for name, places in lists.items()}, [note]


def _check_published(labels: Labels, patients: Sequence[_Patient], data: WsiData) -> None:
    problems = []
    for patient in patients:
        if len(patient.labels) > 1:
            rows = ", ".join(str(labels.slides[place].row) for place in patient.places)
            problems.append(
                f"rows {rows}: slides of patient '{patient.name}' differ in label; {data.protocol} divides by one "
                "label a patient. Use data.protocol=stratified."
            )
    counts = Counter(patient.label for patient in patients)
    for each, name in enumerate(labels.classes):
        if 0 < counts[each] < data.folds:
            problems.append(
                f"class '{name}' has '{counts[each]}' patients, too few for data.folds={data.folds}. Use fewer folds."
            )
    refuse(labels.path, problems)
