import math

import numpy as np
import pytest

from pipelines.ultrasound.evaluation.scores import (
    Segmented,
    agreement,
    by_subject,
    dice_means,
    interval_over_subjects,
    mean_of,
)


def test_mean_of__too_few_have_no_spread() -> None:
    assert mean_of(np.array([0.5, 1.0])).spread == pytest.approx(math.sqrt(0.125))
    assert math.isnan(mean_of(np.array([0.5])).spread)
    assert math.isnan(mean_of(np.array([])).mean)


def test_agreement__bias_and_limits_by_hand() -> None:
    found = agreement(np.array([10.0, 14.0, 9.0]), np.array([8.0, 10.0, 9.0]))  # differences 2, 4 and 0
    assert (found.bias, found.count) == (2, 3)
    assert (found.low, found.high) == pytest.approx((2 - 1.96 * 2, 2 + 1.96 * 2))
    one = agreement(np.array([3.0]), np.array([1.0]))
    assert one.bias == 2
    assert math.isnan(one.low)


def test_dice_means__without_a_gate_end_to_end_is_all_frames() -> None:
    found = dice_means(
        Segmented(dice=np.array([0.5, 0.0, 1.0]), has_mask=np.array([1, 1, 0], bool), present=np.array([1, 0, 0], bool))
    )
    assert found.end_to_end == found.all_frames == found.accepted
    assert found.present.count == found.found.count == 1


def test_by_subject__unknown_values_are_left_out() -> None:
    found = by_subject(np.array([1.0, 0.0, np.nan, 0.5, np.nan]), ["b", "b", "b", "a", "c"])
    assert found[:2].tolist() == [0.5, 0.5]
    assert math.isnan(found[2])


def test_interval_over_subjects__holds_the_mean_and_shrinks_with_their_number() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    low, high = interval_over_subjects(values[:25])
    assert low < values[:25].mean() < high
    assert np.diff(interval_over_subjects(values)) < (high - low) / 2
    assert math.isnan(interval_over_subjects(np.array([np.nan]))[0])
