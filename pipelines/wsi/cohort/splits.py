"""Which slides train, which choose, which are reported on: divided by patient, the same at every call."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from pipelines.wsi.cohort.csv_table import refuse
from pipelines.wsi.cohort.folds import Places
from pipelines.wsi.cohort.labels import LabelledSlide, Labels
from pipelines.wsi.cohort.protocols import make_lists
from pipelines.wsi.config import WsiConfig, WsiData
from vision_core.errors import ConfigError

SELECTED_ON_TEST = (
    "SELECTED ON TEST: epoch and threshold are chosen on the list that is reported, as published code did "
    "(data.select_on_test). The figures are too good; do not compare them with figures of a held-out list."
)

_LARGEST_R2_SEED = 2**32 - 1  # numpy's old generator takes no more
_PART = (
    "{} of the list's {} slides are evaluated: those that data.protocol={} held out of training; for a list of other "
    "slides set data.protocol=given"
)
_REMEDIES = {
    "training": "Use fewer folds, another seed (data.split_seed), or more slides.",
    "validation": "Use a larger data.val_share, another seed (data.split_seed), or more slides.",
}


@dataclass(frozen=True, kw_only=True)
class Division:
    """Indices into the slides of a list, in its order.

    Attributes:
        train: To learn from.
        val: To choose epoch and threshold on; the test list itself under ``data.select_on_test``.
        test: To report on.
        notes: What a person should know of it.
    """

    train: Places
    val: Places
    test: Places
    notes: tuple[str, ...] = ()


class _Labelled(Protocol):
    """What has a class."""

    @property
    def label(self) -> int: ...


def division_seed(config: WsiConfig) -> int:
    """What random divisions follow from."""
    return config.train.seed if config.data.split_seed is None else config.data.split_seed


def divide(labels: Labels, data: WsiData, seed: int) -> Division:
    """Divide a list for training.

    Raises:
        DataError: A patient is on two lists, or training or validation lacks a class.
        ConfigError: ``data`` asks for what the list has not: a column, so many folds, a list.
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
    division = Division(train=train, val=val, test=test, notes=tuple(notes))
    _refuse_shared_patients(labels, division)
    _check_lists(labels, lists, data)
    chosen = {"training": train, "validation": val}
    refuse_absent_classes(labels, {name: [labels.slides[each] for each in own] for name, own in chosen.items()})
    return division


def evaluated_places(labels: Labels, data: WsiData, seed: int) -> tuple[Places, tuple[str, ...]]:
    """What is reported on, without the demands of training: a list that divides nothing is taken whole.

    Raises:
        DataError: The list names parts that are not known.
        ConfigError: No part is named, or it cannot be made.
    """
    every = len(labels.slides)
    if data.protocol == "given" and not {"split", "fold"} & set(labels.columns):
        return tuple(range(every)), ("the list has no column 'split' or 'fold': all of it is evaluated",)
    if not data.eval_split:
        raise ConfigError("data.eval_split is empty: name the labelled list to evaluate on.")
    if data.protocol == "given" and "fold" not in labels.columns:  # a model of a fold, on another list
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
        DataError: One lacks a class: nothing can be learnt of it, or chosen.
    """
    problems = []
    for list_name, slides in lists.items():
        there = [slide.label for slide in slides]
        problems += [
            f"{list_name} has no slide of class '{name}' among its '{len(there)}' slides. {_REMEDIES[list_name]}"
            for each, name in enumerate(labels.classes)
            if each not in there
        ]
    refuse(labels.path, problems)


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
    there = ", ".join(name for name, places in lists.items() if name and places)
    for key, name in {"data.split": data.split, "data.eval_split": data.eval_split}.items():
        if name and not lists.get(name):
            raise ConfigError(
                f"'{labels.path}' has no slide on the list '{name}' ({key}); there is '{there}'. Set {key}."
            )
    if not data.select_on_test and not lists.get(data.val_split):
        why = f"data.val_share is '{data.val_share:g}'. Set it higher"
        if data.val_share:  # one patient of each class at least would validate, where it has two
            why = f"no class has two patients on the list '{data.split}', of whom one could. Add patients"
        raise ConfigError(
            f"There is no validation list to choose epoch and threshold on: {why}, or ask for "
            "data.select_on_test=true, as published code did."
        )


def _refuse_shared_patients(labels: Labels, division: Division) -> None:
    lists = {"training": division.train, "validation": division.val, "test": division.test}
    problems = []
    for (one, first), (other, second) in combinations(lists.items(), 2):
        if first == second:  # chosen on the list that is reported, on request
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
    refuse(labels.path, problems)
