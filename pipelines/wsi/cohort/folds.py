"""The folds of the two published code generations of MHIM-MIL, and ours; all of them pure functions of labels."""

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from vision_core.randomness import key

Places = tuple[int, ...]
Parts = tuple[Places, Places, Places]  # train, validation, test
Indices = NDArray[np.int64]
Shuffle = Callable[[Indices], Indices]


def r1_folds(labels: Sequence[int], folds: int, val_share: float, seed: int) -> list[Parts]:
    """The first generation: one of Python's generators shuffles the list, then, fold after fold, each class.

    Args:
        labels: Class of each patient, in the order of the list.
        folds: Their number, from 2 on.
        val_share: Of the training part of a class, rounded down.
        seed: Of the generator.
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
    """The second generation: numpy's old generator, seeded anew for the list and for each class of each fold.

    Args:
        labels: Class of each patient, in the order of the list.
        folds: Their number, from 2 on.
        val_share: Of the training part of a class, rounded down.
        seed: Of every shuffle.
    """

    def shuffled(members: Indices) -> Indices:
        return members[np.random.RandomState(seed).permutation(len(members))]

    order = shuffled(np.arange(len(labels))).tolist()
    return [
        _parts(train, _first_shares(labels, train, val_share, shuffled), test)
        for train, test in _stratified(labels, order, folds)
    ]


def dealt_folds(labels: Sequence[int], folds: int, seed: int) -> list[Places]:
    """Ours: the members of each class, shuffled by a key, are dealt to the folds one after the other."""
    dealt: list[list[int]] = [[] for _ in range(folds)]
    next_fold = 0
    for each in sorted(set(labels)):
        for place in _keyed(labels, range(len(labels)), each, ("folds", seed)):
            dealt[next_fold].append(place)
            next_fold = (next_fold + 1) % folds
    return [tuple(sorted(places)) for places in dealt]


def carve(labels: Sequence[int], places: Sequence[int], share: float, *parts: object) -> Places:
    """Ours: a share of each class among ``places``, one at least where it has two, drawn by the key of ``parts``."""
    taken: list[int] = []
    if share <= 0:
        return ()
    for each in sorted({labels[place] for place in places}):
        members = _keyed(labels, places, each, parts)
        count = min(max(round(len(members) * share), 1), len(members) - 1)
        taken += members[:count]
    return tuple(sorted(taken))


def _stratified(labels: Sequence[int], order: Sequence[int], folds: int) -> Iterator[tuple[Indices, Indices]]:
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


def _keyed(labels: Sequence[int], places: Sequence[int], each: int, parts: tuple[object, ...]) -> list[int]:
    members = [place for place in places if labels[place] == each]
    generator = np.random.default_rng(key("division", *parts, each))
    return [members[place] for place in generator.permutation(len(members)).tolist()]
