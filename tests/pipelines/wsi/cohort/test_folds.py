"""Divisions against examples done by hand and against the libraries that the published code calls."""

import random

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from pipelines.wsi.cohort.folds import balanced_folds, draw_share, r1_folds, r2_folds

pd = pytest.importorskip("pandas")  # carries no types
LABELS = [0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0]


def test_r1_folds__by_hand() -> None:
    """Seed 2021 shuffles 0..11 to 1 11 2 9 7 0 5 3 4 8 10 6: of class 1 stand 1 5 4 8 10, of class 0 11 2 9 7 0 3 6.

    Without shuffling, scikit-learn gives 2, 2, 1 of class 1 and 2, 2, 3 of class 0 to the folds, in that order.
    """
    parts = r1_folds(LABELS, 3, 0.0, 2021)
    assert [test for _, _, test in parts] == [(1, 2, 5, 11), (4, 7, 8, 9), (0, 3, 6, 10)]
    assert parts[0][0] == (0, 3, 4, 6, 7, 8, 9, 10)
    assert not any(val for _, val, _ in parts)


def test_r1_folds__validation_goes_on_with_the_same_generator() -> None:
    generator = random.Random(7)
    order = list(range(12))
    generator.shuffle(order)
    ids, kinds = np.array(order), np.array(LABELS)[order]
    for found, (train, test) in zip(r1_folds(LABELS, 3, 0.3, 7), StratifiedKFold(3).split(ids, kinds), strict=True):
        chosen = []
        for each in (0, 1):
            members = [place for place in ids[train] if LABELS[place] == each]
            generator.shuffle(members)
            chosen += members[: int(0.3 * len(members))]
        assert set(found[1]) == set(chosen)
        assert set(found[0]) == set(ids[train]) - set(chosen)
        assert set(found[2]) == set(ids[test])


@pytest.mark.parametrize("seed", [0, 2021])
def test_r2_folds__as_the_published_table_code(seed: int) -> None:
    table = pd.DataFrame({"ID": range(12), "Label": LABELS}).sample(frac=1, random_state=seed).reset_index(drop=True)
    found = r2_folds(LABELS, 3, 0.3, seed)
    for (train, val, test), (training, held) in zip(
        found, StratifiedKFold(3).split(table, table["Label"]), strict=True
    ):
        part = table.iloc[training]
        chosen = pd.concat(
            rows.sample(frac=1, random_state=seed).iloc[: int(len(rows) * 0.3)] for _, rows in part.groupby("Label")
        )
        assert set(val) == set(chosen["ID"])
        assert set(train) == set(part["ID"]) - set(val)
        assert set(test) == set(table.iloc[held]["ID"])


def test_folds__shares_are_rounded_down_per_class() -> None:
    labels = [0] * 20 + [1] * 12
    for folds in (r1_folds, r2_folds):
        for _, val, test in folds(labels, 4, 0.13, 3):
            assert [sum(labels[place] == each for place in test) for each in (0, 1)] == [5, 3]
            assert [sum(labels[place] == each for place in val) for each in (0, 1)] == [1, 1]  # of 15 and of 9


def test_dealt_folds__classes_and_sizes_are_even_and_the_seed_decides() -> None:
    labels = [0] * 7 + [1] * 4
    dealt = balanced_folds(labels, 3, seed=1)
    assert sorted(place for places in dealt for place in places) == list(range(11))
    assert sorted(len(places) for places in dealt) == [3, 4, 4]
    assert sorted(sum(labels[place] for place in places) for places in dealt) == [1, 1, 2]
    assert dealt == balanced_folds(labels, 3, seed=1) != balanced_folds(labels, 3, seed=2)


def test_carve__one_at_least_and_never_all() -> None:
    labels = [0] * 10 + [1, 1] + [2]
    taken = draw_share(labels, range(13), 0.2, "val", 0)
    assert [sum(labels[place] == each for place in taken) for each in (0, 1, 2)] == [2, 1, 0]
    assert draw_share(labels, range(13), 0.2, "val", 0) == taken
    assert len(draw_share(labels, range(13), 1.0, "val", 0)) == 9 + 1
    assert draw_share(labels, range(13), 0.0, "val", 0) == ()
    assert set(draw_share(labels, [0, 1, 2, 10, 11], 0.5, "val", 0)) <= {0, 1, 2, 10, 11}
