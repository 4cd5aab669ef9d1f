"""Scores against checks N11 and N12."""

import numpy as np
import pytest

from pipelines.pretrain.scores import macro_scores, roc_areas, top_k_accuracy

TRUTH = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 1])
PREDICTED = np.array([0, 1, 0, 1, 1, 2, 0, 2, 1, 2])
SCORES = np.array(
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
    areas = roc_areas(TRUTH, SCORES)
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
    with_absent = np.insert(SCORES, 1, 0.05, axis=1)
    areas = roc_areas(np.where(TRUTH > 0, TRUTH + 1, 0), with_absent)
    assert np.isnan(areas.one_vs_rest).tolist() == [False, True, False, False]
    assert areas.macro_one_vs_rest == pytest.approx(0.885913, abs=1e-6)
    assert areas.macro_one_vs_one == pytest.approx(0.886574, abs=1e-6)


def test_roc_areas__one_class_alone_has_no_area() -> None:
    areas = roc_areas(np.zeros(3, dtype=np.int64), SCORES[:3])
    assert np.isnan([areas.macro_one_vs_rest, areas.macro_one_vs_one]).all()


def test_top_k__by_hand() -> None:
    logits = np.array([[0.1, 0.9, 0.3, 0.2, 0.5, 0.0], [0.8, 0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.3, 0.1, 0.9, 0.4, 0.5]])
    truth = np.array([1, 4, 0])
    assert top_k_accuracy(truth, logits, 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(truth, logits, 5) == 1.0
