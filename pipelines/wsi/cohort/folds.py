"""Cross-validation folds: those of MHIM-MIL's two published code versions, and ours."""

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vision_core.randomness import key

Places = tuple[int, ...]
Parts = tuple[Places, Places, Places]  # train, validation, test
Indices = NDArray[np.int64]
Shuffle = Callable[[Indices], Indices]


def r1_folds(labels: Sequence[int], folds: int, val_share: float, seed: int) -> list[Parts]:
    """Make the folds of the first published code version.

    One generator of Python's ``random`` shuffles the list and then, fold after fold, each class.

    Args:
        labels: Class of each patient, in the order of the list.
        folds: Number of folds, at least 2.
        val_share: Validation share of the training patients of each class, rounded down.
        seed: Seed of the generator.
    """
    generator = random.Random(seed)
    order = list(range(len(labels)))
    generator.shuffle(order)

    def shuffled(members: Indices) -> Indices:
        listed = members.tolist()
        generator.shuffle(listed)
        return np.array(listed, np.int64)

    parts = []
    for train, test in _stratified(labels, order, folds):
        val = _first_shares(labels, train, val_share, shuffled)
        parts.append(_parts(train, val, test))
    return parts


def r2_folds(labels: Sequence[int], folds: int, val_share: float, seed: int) -> list[Parts]:
    """Make the folds of the second published code version.

    NumPy's ``RandomState`` is seeded anew for the list and for each class of each fold.

    Args:
        labels: Class of each patient, in the order of the list.
        folds: Number of folds, at least 2.
        val_share: Validation share of the training patients of each class, rounded down.
        seed: Seed of every shuffle.
    """

    def shuffled(members: Indices) -> Indices:
        return members[np.random.RandomState(seed).permutation(len(members))]

    order = shuffled(np.arange(len(labels))).tolist()
    return [
        _parts(train, _first_shares(labels, train, val_share, shuffled), test)
        for train, test in _stratified(labels, order, folds)
    ]


def balanced_folds(labels: Sequence[int], folds: int, seed: int) -> list[Places]:
    """Make our stratified folds: each class is shuffled and dealt to the folds in turn."""
    members: list[list[int]] = [[] for _ in range(folds)]
    next_fold = 0
    for each in sorted(set(labels)):
        for place in _shuffled_class(labels, range(len(labels)), each, ("folds", seed)):
            members[next_fold].append(place)
            next_fold = (next_fold + 1) % folds
    return [tuple(sorted(places)) for places in members]


def draw_share(labels: Sequence[int], places: Sequence[int], share: float, *parts: object) -> Places:
    """Draw our stratified share of ``places``.

    Each class gives at least one member where it has two.

    Args:
        labels: Class of each patient.
        places: Patients to draw from.
        share: Share of each class, rounded.
        parts: Parts of the random key.
    """
    drawn: list[int] = []
    if share <= 0:
        return ()
    for each in sorted({labels[place] for place in places}):
        members = _shuffled_class(labels, places, each, parts)
        count = min(max(round(len(members) * share), 1), len(members) - 1)
        drawn += members[:count]
    return tuple(sorted(drawn))


def _stratified(labels: Sequence[int], order: Sequence[int], folds: int) -> Iterator[tuple[Indices, Indices]]:
    from sklearn.model_selection import StratifiedKFold  # it takes longer to import than all of this package

    ordered = np.array(order, np.int64)
    for train, test in StratifiedKFold(folds).split(ordered, np.array(labels)[ordered]):
        yield ordered[train], ordered[test]


def _first_shares(labels: Sequence[int], train: Indices, share: float, shuffled: Shuffle) -> set[int]:
    if not share:
        return set()
    classes = np.array(labels)[train]
    taken: set[int] = set()
    for each in np.unique(classes):
        members = train[classes == each]
        taken.update(shuffled(members)[: int(len(members) * share)].tolist())
    return taken


def _parts(train: Indices, val: set[int], test: Indices) -> Parts:
    return (
        tuple(sorted(set(train.tolist()) - val)),
        tuple(sorted(val)),
        tuple(sorted(test.tolist())),
    )


def _shuffled_class(labels: Sequence[int], places: Sequence[int], each: int, parts: tuple[object, ...]) -> list[int]:
    members = [place for place in places if labels[place] == each]
    generator = np.random.default_rng(key("division", *parts, each))
    return [members[place] for place in generator.permutation(len(members)).tolist()]
