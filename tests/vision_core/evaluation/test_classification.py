"""Metrics against the numbers of the specification (check C14)."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import sklearn.metrics as reference
from numpy.typing import NDArray

from tests.vision_core.evaluation.bootstrap import bootstrap
from vision_core.evaluation.classification import (
    auc,
    binary_auc,
    class_scores,
    kappa,
    macro_accuracy,
    macro_f1,
    macro_precision,
    macro_scores,
    micro_accuracy,
    roc_areas,
    top_k_accuracy,
    youden_threshold,
)

LABELS = np.array([0, 0, 1, 1, 0, 1, 0, 1, 1, 0])
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.5, 0.9, 0.2, 0.5, 0.6, 0.7])

TRUTH = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 1])
PREDICTED = np.array([0, 1, 0, 1, 1, 2, 0, 2, 1, 2])
CLASS_SCORES = np.array(
    [
        [0.7, 0.2, 0.1],
        [0.4, 0.5, 0.1],
        [0.6, 0.3, 0.1],
        [0.2, 0.7, 0.1],
        [0.3, 0.4, 0.3],
        [0.1, 0.2, 0.7],
        [0.5, 0.1, 0.4],
        [0.2, 0.2, 0.6],
        [0.1, 0.6, 0.3],
        [0.2, 0.35, 0.45],
    ]
)


def test_metrics__ten_slides() -> None:
    predicted = (SCORES > 0.5).astype(np.int64)
    assert binary_auc(LABELS, SCORES) == pytest.approx(0.78)
    assert micro_accuracy(LABELS, predicted) == pytest.approx(0.7)
    assert macro_accuracy(LABELS, predicted) == pytest.approx(0.7)
    assert macro_f1(LABELS, predicted) == pytest.approx(0.696970, abs=1e-6)


def test_youden_threshold__highest_of_equals() -> None:
    threshold = youden_threshold(LABELS, SCORES)
    predicted = (threshold <= SCORES).astype(np.int64)
    assert threshold == 0.8
    assert micro_accuracy(LABELS, predicted) == pytest.approx(0.7)
    assert class_scores(LABELS, predicted, 2)[1][1] == pytest.approx(0.571429, abs=1e-6)


def test_youden_threshold__costs_that_are_equal_are_equal() -> None:
    labels = np.array([0, 1, 1, 0, 1, 1, 0, 1, 0, 0, 0, 1])
    scores = np.array([0, 0.8, 0.7, 0.6, 0.5, 1, 0.9, 0.8, 0.9, 0.5, 0.1, 0.6])
    assert youden_threshold(labels, scores) == 0.7  # -1/3, as at 0.6 and 0.5


def test_youden_threshold__none_is_better_than_chance() -> None:
    assert youden_threshold(np.array([0, 1]), np.array([0.5, 0.5])) == math.inf


def test_binary_auc__of_what_is_no_number_is_none() -> None:
    assert math.isnan(binary_auc(np.array([0, 0, 1, 1]), np.array([0.2, 0.3, np.nan, 0.1])))


def test_auc__macro_of_two_classes_is_the_binary_one() -> None:
    probabilities = np.stack([1 - SCORES, SCORES], axis=1)
    assert auc(LABELS, probabilities) == pytest.approx(0.78)
    assert roc_areas(LABELS, probabilities).macro_one_vs_rest == pytest.approx(0.78)


def test_macro_accuracy__differs_from_micro_on_unequal_classes() -> None:
    labels, predicted = np.array([0, 0, 0, 1]), np.zeros(4, dtype=np.int64)
    assert (micro_accuracy(labels, predicted), macro_accuracy(labels, predicted)) == (0.75, 0.5)


def test_binary_auc__one_class_is_not_a_number() -> None:
    assert math.isnan(binary_auc(np.ones(3, dtype=np.int64), SCORES[:3]))


def test_bootstrap__resamples_without_a_class_are_left_out() -> None:
    values = bootstrap(binary_auc, LABELS[:3], SCORES[:3], fold=0, samples=200)
    assert 100 < len(values) < 200
    assert np.isfinite(values).all()


def test_bootstrap__same_fold_same_values() -> None:
    first, again, other = (bootstrap(binary_auc, LABELS, SCORES, fold, samples=50) for fold in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other[: len(first)])


def test_macro_scores__by_hand() -> None:
    scores = macro_scores(TRUTH, PREDICTED)
    assert (scores.precision, scores.recall) == pytest.approx((0.611111, 0.611111), abs=1e-6)
    assert (scores.f1, scores.accuracy) == pytest.approx((0.603175, 0.6), abs=1e-6)


def test_macro_scores__absent_class_is_left_out_and_one_never_predicted_counts_zero() -> None:
    scores = macro_scores(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 3]))
    assert scores.precision == pytest.approx((2 / 3 + 0) / 2)
    assert scores.recall == pytest.approx((1 + 0) / 2)
    assert scores.f1 == pytest.approx((0.8 + 0) / 2)
    assert scores.accuracy == 0.5


def test_roc_areas__by_hand() -> None:
    areas = roc_areas(TRUTH, CLASS_SCORES)
    assert areas.one_vs_rest == pytest.approx([0.952381, 0.809524, 0.895833], abs=1e-6)
    assert areas.macro_one_vs_rest == pytest.approx(0.885913, abs=1e-6)
    pairs = areas.one_vs_one[[0, 0, 1], [1, 2, 2]]
    assert pairs == pytest.approx([0.888889, 0.958333, 0.812500], abs=1e-6)
    assert areas.macro_one_vs_one == pytest.approx(0.886574, abs=1e-6)


def test_roc_areas__equal_the_count_over_all_pairs_of_images() -> None:
    draw = np.random.default_rng(0)
    truth, scores = draw.integers(0, 4, 60), draw.integers(0, 5, (60, 4)) / 4  # many ties
    ours, theirs = scores[truth == 1, 1][:, None], scores[truth != 1, 1][None]
    brute = np.mean((ours > theirs) + 0.5 * (ours == theirs))
    assert roc_areas(truth, scores).one_vs_rest[1] == pytest.approx(brute)


def test_roc_areas__absent_class_is_unknown_and_left_out_of_the_means() -> None:
    with_absent = np.insert(CLASS_SCORES, 1, 0.05, axis=1)
    areas = roc_areas(np.where(TRUTH > 0, TRUTH + 1, 0), with_absent)
    assert np.isnan(areas.one_vs_rest).tolist() == [False, True, False, False]
    assert areas.macro_one_vs_rest == pytest.approx(0.885913, abs=1e-6)
    assert areas.macro_one_vs_one == pytest.approx(0.886574, abs=1e-6)


def test_roc_areas__one_class_alone_has_no_area() -> None:
    areas = roc_areas(np.zeros(3, dtype=np.int64), CLASS_SCORES[:3])
    assert np.isnan([areas.macro_one_vs_rest, areas.macro_one_vs_one]).all()


def test_top_k__by_hand() -> None:
    logits = np.array([[0.1, 0.9, 0.3, 0.2, 0.5, 0.0], [0.8, 0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.3, 0.1, 0.9, 0.4, 0.5]])
    truth = np.array([1, 4, 0])
    assert top_k_accuracy(truth, logits, 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(truth, logits, 5) == 1.0


SEEDS = range(50)


def drawn(seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], int]:
    """Draw labels, scores with many ties and predictions; some classes are absent."""
    generator = np.random.default_rng(seed)
    num_classes, count = int(generator.integers(2, 6)), int(generator.integers(2, 40))
    labels = generator.integers(0, num_classes, count)
    scores = generator.integers(0, 5, (count, num_classes)) / 4
    return labels, scores, generator.integers(0, num_classes, count), num_classes


@pytest.mark.parametrize("seed", SEEDS)
def test_areas__are_those_of_scikit_learn(seed: int) -> None:
    labels, scores, _, num_classes = drawn(seed)
    areas = roc_areas(labels, scores)
    for each in range(num_classes):
        truth = (labels == each).astype(np.int64)
        expected = reference.roc_auc_score(truth, scores[:, each]) if len(set(truth)) == 2 else math.nan
        assert binary_auc(truth, scores[:, each]) == pytest.approx(expected, abs=1e-12, nan_ok=True)
        assert areas.one_vs_rest[each] == pytest.approx(expected, abs=1e-12, nan_ok=True)
    for one, other in itertools.combinations(range(num_classes), 2):
        chosen, expected = np.isin(labels, [one, other]), math.nan
        if len(set(labels[chosen])) == 2:
            pair = labels[chosen], scores[chosen]
            expected = np.mean([reference.roc_auc_score(pair[0] == each, pair[1][:, each]) for each in (one, other)])
        assert areas.one_vs_one[one, other] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_auc__is_that_of_scikit_learn_where_every_class_is_present(seed: int) -> None:
    labels, scores, _, num_classes = drawn(seed)
    shares = (scores + 1) / (scores + 1).sum(axis=1, keepdims=True)
    if len(set(labels)) < num_classes:
        assert math.isnan(auc(labels, shares))
    elif num_classes == 2:
        assert auc(labels, shares) == pytest.approx(reference.roc_auc_score(labels, shares[:, 1]), abs=1e-12)
    else:
        assert auc(labels, shares) == pytest.approx(
            reference.roc_auc_score(labels, shares, multi_class="ovr"), abs=1e-12
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_agreements__are_those_of_scikit_learn(seed: int) -> None:
    labels, _, predicted, num_classes = drawn(seed)
    present = np.unique(labels)
    f1 = partial(reference.f1_score, labels, predicted, average="macro", zero_division=0)
    recall = reference.recall_score(labels, predicted, labels=present, average="macro", zero_division=0)
    scores = macro_scores(labels, predicted)
    precision = partial(reference.precision_score, labels, predicted, average="macro", zero_division=0)
    pairs = [
        (micro_accuracy(labels, predicted), reference.accuracy_score(labels, predicted)),
        (macro_accuracy(labels, predicted), recall),
        (macro_f1(labels, predicted), f1()),
        (macro_f1(labels, predicted, only_present=True), f1(labels=present)),
        (macro_precision(labels, predicted), precision()),
        (scores.precision, precision(labels=present)),
        (scores.recall, recall),
        (scores.f1, f1(labels=present)),
        (scores.accuracy, reference.accuracy_score(labels, predicted)),
    ]
    for found, expected in pairs:
        assert found == pytest.approx(expected, abs=1e-12)
    recalls, f1s = class_scores(labels, predicted, num_classes)
    assert np.isnan(recalls).tolist() == np.isnan(f1s).tolist() == [each not in present for each in range(num_classes)]
    assert np.nanmean(recalls) == pytest.approx(recall, abs=1e-12)
    assert np.nanmean(f1s) == pytest.approx(f1(labels=present), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_kappa__is_agreement_beyond_chance(seed: int) -> None:
    labels, _, predicted, num_classes = drawn(seed)
    chance = sum((labels == each).mean() * (predicted == each).mean() for each in range(num_classes))
    expected = (micro_accuracy(labels, predicted) - chance) / (1 - chance) if chance < 1 else math.nan
    assert kappa(labels, predicted) == pytest.approx(expected, abs=1e-12, nan_ok=True)
