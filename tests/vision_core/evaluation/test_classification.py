"""Metrics against the numbers of the specification (check C14)."""

import math

import numpy as np
import pytest

from vision_core.evaluation.classification import (
    binary_auc,
    bootstrap,
    f1,
    macro_accuracy,
    macro_auc,
    macro_f1,
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
    assert f1(LABELS == 1, predicted == 1) == pytest.approx(0.571429, abs=1e-6)


def test_youden_threshold__costs_that_are_equal_are_equal() -> None:
    labels = np.array([0, 1, 1, 0, 1, 1, 0, 1, 0, 0, 0, 1])
    scores = np.array([0, 0.8, 0.7, 0.6, 0.5, 1, 0.9, 0.8, 0.9, 0.5, 0.1, 0.6])
    assert youden_threshold(labels, scores) == 0.7  # -1/3, as at 0.6 and 0.5


def test_youden_threshold__none_is_better_than_chance() -> None:
    assert youden_threshold(np.array([0, 1]), np.array([0.5, 0.5])) == math.inf


def test_binary_auc__of_what_is_no_number_is_none() -> None:
    assert math.isnan(binary_auc(np.array([0, 0, 1, 1]), np.array([0.2, 0.3, np.nan, 0.1])))


def test_macro_auc__of_two_classes_is_the_binary_one() -> None:
    assert macro_auc(LABELS, np.stack([1 - SCORES, SCORES], axis=1)) == pytest.approx(0.78)


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
    scores = macro_scores(TRUTH, PREDICTED, 3)
    assert (scores.precision, scores.recall) == pytest.approx((0.611111, 0.611111), abs=1e-6)
    assert (scores.f1, scores.accuracy) == pytest.approx((0.603175, 0.6), abs=1e-6)


def test_macro_scores__absent_class_is_left_out_and_one_never_predicted_counts_zero() -> None:
    scores = macro_scores(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 3]), 5)
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
