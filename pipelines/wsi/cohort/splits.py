"""Split of slides into training, validation and test lists, by patient and reproducible."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol

from pipelines.wsi.cohort.csv_table import refuse
from pipelines.wsi.cohort.folds import Places
from pipelines.wsi.cohort.labels import LabelledSlide, Labels
from pipelines.wsi.cohort.protocols import make_lists
from pipelines.wsi.config import WsiConfig, WsiData
from vision_core.errors import ConfigError
from vision_core.evaluation.class_names import variant_key

SELECTED_ON_TEST = (
    "SELECTED ON TEST: epoch and threshold are chosen on the list that is reported, as published code did "
    "(data.select_on_test). The figures are too good; do not compare them with figures of a held-out list."
)

_SHOWN = 3
_LARGEST_R2_SEED = 2**32 - 1  # the largest seed of NumPy's RandomState
_PART = (
    "{} of the list's {} slides are evaluated: those that data.protocol={} held out of training; for a list of other "
    "slides set data.protocol=given"
)
_REMEDIES = {
    "training": "Use fewer folds, another seed (data.split_seed), or more slides.",
    "validation": "Use a larger data.val_share, another seed (data.split_seed), or more slides.",
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """Training, validation and test slides, as indices into the rows of the CSV.

    Attributes:
        train: Training slides.
        val: Slides that choose epoch and threshold; the test slides under ``data.select_on_test``.
        test: Slides to report on.
        notes: Notes to the user.
    """

    train: Places
    val: Places
    test: Places
    notes: tuple[str, ...] = ()


class _Labelled(Protocol):
    """A slide with a class."""

    @property
    def label(self) -> int: ...


def splitting_seed(config: WsiConfig) -> int:
    """Return the seed of random splits: ``data.split_seed``, else ``train.seed``."""
    return config.train.seed if config.data.split_seed is None else config.data.split_seed


def split_slides(labels: Labels, data: WsiData, seed: int) -> Split:
    """Split the slides of a CSV for training.

    Raises:
        DataError: A patient is on two lists, or training or validation lacks a class.
        ConfigError: ``data`` names a column, a number of folds or a list that the CSV does not have.
    """
    _check_settings(data, seed, for_training=True)
    made = make_lists(labels, data, seed)
    lists, notes = made.by_name, list(made.notes)
    train, val, test = (lists.get(name or "", ()) for name in (data.split, data.val_split, data.eval_split))
    test = test if data.eval_split else ()
    if data.select_on_test:
        val, notes = test, [*notes, SELECTED_ON_TEST]
    elif data.eval_split == data.val_split:
        notes.append(
            f"data.eval_split is '{data.val_split}', which also chooses epoch and threshold: report on another"
        )
    split = Split(train=train, val=val, test=test)
    split = replace(split, notes=(*notes, *_alike_patients(labels, split)))
    shared = _shared_patients(labels, split)
    if not shared:
        _check_lists(labels, lists, data)
    chosen = {"training": train, "validation": val}
    rows = {name: [labels.slides[each] for each in own] for name, own in chosen.items()}
    refuse(labels.path, [*shared, *_absent_classes(labels, rows)])
    return split


def evaluated_places(labels: Labels, data: WsiData, seed: int) -> tuple[Places, tuple[str, ...]]:
    """Select the rows to report on, with notes; a CSV without splits is taken whole.

    Raises:
        DataError: The CSV names lists that are not known.
        ConfigError: ``data.eval_split`` is empty, or the list cannot be made.
    """
    every = len(labels.slides)
    if data.protocol == "given" and not {"split", "fold"} & set(labels.columns):
        return tuple(range(every)), ("the list has no column 'split' or 'fold': all of it is evaluated",)
    if not data.eval_split:
        raise ConfigError("data.eval_split is empty: name the labelled list to evaluate on.")
    if data.protocol == "given" and "fold" not in labels.columns:  # a model of one fold is evaluated on another CSV
        data = data.model_copy(update={"folds": 0, "fold": None})
    _check_settings(data, seed, for_training=False)
    made = make_lists(labels, data, seed)
    places = made.by_name.get(data.eval_split or "", ())
    if data.protocol == "given":
        return places, made.notes
    return places, (*made.notes, _PART.format(len(places), every, data.protocol))


def refuse_absent_classes(labels: Labels, lists: Mapping[str, Iterable[_Labelled]]) -> None:
    """Refuse ``training`` and ``validation`` lists without a slide of some class.

    Raises:
        DataError: A list lacks a class.
    """
    refuse(labels.path, _absent_classes(labels, lists))


def _absent_classes(labels: Labels, lists: Mapping[str, Iterable[_Labelled]]) -> list[str]:
    problems = []
    for list_name, slides in lists.items():
        present = [slide.label for slide in slides]
        problems += [
            f"{list_name} has no slide of class '{name}' among its '{len(present)}' slides. {_REMEDIES[list_name]}"
            for each, name in enumerate(labels.classes)
            if each not in present
        ]
    return problems


def _check_settings(data: WsiData, seed: int, *, for_training: bool) -> None:
    problems = []
    if data.protocol in {"r1", "r2"} and data.folds < 2:
        problems.append(f"data.protocol={data.protocol} makes folds: set data.folds to 2 or more, not '{data.folds}'.")
    if data.folds == 1:
        problems.append("data.folds is '1'. Set 2 or more, or 0 for one fixed division.")
    if data.fold is not None and not data.folds and data.protocol != "given":
        problems.append(f"data.fold is '{data.fold}', but data.folds is 0. Set data.folds to the number of folds.")
    if data.folds and data.fold is None:
        problems.append("data.fold is empty. Name the fold of this run, from 0.")
    if data.folds and data.fold is not None and data.fold >= data.folds:
        problems.append(f"data.fold is '{data.fold}'; of data.folds={data.folds} the last is {data.folds - 1}.")
    if data.protocol == "r2" and seed > _LARGEST_R2_SEED:
        problems.append(f"data.protocol=r2 takes seeds up to {_LARGEST_R2_SEED}, not '{seed}'. Set data.split_seed.")
    if for_training and data.select_on_test and not data.eval_split:
        problems.append("data.select_on_test needs a list to select on: name it as data.eval_split.")
    if for_training and data.split in {data.val_split, data.eval_split}:
        problems.append(f"data.split, '{data.split}', is also the list to choose or to report on. Name another.")
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def _check_lists(labels: Labels, lists: Mapping[str, Places], data: WsiData) -> None:
    known = ", ".join(name for name, places in lists.items() if name and places)
    for key, name in {"data.split": data.split, "data.eval_split": data.eval_split}.items():
        if name and not lists.get(name):
            raise ConfigError(
                f"'{labels.path}' has no slide on the list '{name}' ({key}); there is '{known}'. Set {key}."
            )
    if not data.select_on_test and not lists.get(data.val_split):
        why = f"data.val_share is '{data.val_share:g}'. Set it higher"
        if data.val_share:  # every class with two patients gives at least one to validation
            why = f"no class has two patients on the list '{data.split}', of whom one could. Add patients"
        raise ConfigError(
            f"There is no validation list to choose epoch and threshold on: {why}, or ask for "
            "data.select_on_test=true, as published code did."
        )


def _alike_patients(labels: Labels, split: Split) -> list[str]:
    """Note patients on two lists whose names are variants, or differ in leading zeros, as of spreadsheets."""
    places: dict[str, dict[str, int]] = {}
    for number, own in enumerate((split.train, split.val, split.test)):
        for patient in (labels.slides[place].patient for place in own):
            key = variant_key(patient).lstrip("0")
            places.setdefault(key, {}).setdefault(patient, number)
    alike = [names for names in places.values() if len(names) > 1 and len(set(names.values())) > 1]
    if not alike:
        return []
    told = "; ".join(" and ".join(f"'{name}'" for name in names) for names in alike[:_SHOWN])
    return [f"PATIENTS OF NEARLY ONE NAME are on several lists: {told}. Write those of one person alike."]


def _shared_patients(labels: Labels, split: Split) -> list[str]:
    lists = {"training": split.train, "validation": split.val, "test": split.test}
    problems = []
    for (one, first), (other, second) in combinations(lists.items(), 2):
        if first == second:  # data.select_on_test: validation and test are one list
            continue
        rows = {labels.slides[place].patient: labels.slides[place].row for place in reversed(first)}
        shared: dict[str, LabelledSlide] = {}
        for slide in (labels.slides[place] for place in second):
            if slide.patient in rows:
                shared.setdefault(slide.patient, slide)
        problems += [
            f"patient '{patient}' is in {one} (row {rows[patient]}) and in {other} (row {slide.row}). "
            "Put all slides of a patient on one list."
            for patient, slide in shared.items()
        ]
    return problems
