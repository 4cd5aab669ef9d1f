import math
from dataclasses import replace

import numpy as np
import pytest

from pipelines.ultrasound.evaluation.scores import Segmented
from pipelines.ultrasound.screening.gate import accepted
from pipelines.ultrasound.screening.threshold import GRID, cheapest, curve, risk_controlled, subjects_needed
from vision_core.errors import ConfigError, DataError

SCORES = np.array([0.92, 0.15, 0.40, 0.05, 0.73, 0.31, 0.60, 0.58])
PRESENT = np.array([1, 0, 1, 0, 1, 1, 0, 0], bool)
HAS_MASK = np.array([120, 14, 0, 0, 95, 60, 33, 0]) > 0
DICE = np.array([0.9, 0, 0, 1, 0.8, 0.7, 0, 1])
FRAMES = Segmented(dice=DICE, has_mask=HAS_MASK, present=PRESENT)


def test_grid__published_values() -> None:
    assert GRID[:4].tolist() == pytest.approx([0, 0.031579, 0.063158, 0.094737], abs=1e-6)
    assert [len(GRID), GRID[16], GRID[19]] == pytest.approx([20, 0.505263, 0.6], abs=1e-6)


def test_curve__published_costs_and_the_smallest_threshold() -> None:
    points = curve(SCORES, FRAMES)
    costs = [point.counts.cost() for point in points]
    least = [round(point.threshold, 6) for point, cost in zip(points, costs, strict=True) if cost == min(costs)]
    assert min(costs) == 2
    assert least == [0.157895, 0.189474, 0.221053, 0.252632, 0.284211, 0.6]
    assert cheapest(points).threshold == pytest.approx(0.157895, abs=1e-6)


def test_cheapest__a_missed_frame_may_weigh_more() -> None:
    points = curve(SCORES, FRAMES)
    assert cheapest(points, false_positive=5).threshold == pytest.approx(0.6)


def test_curve__published_means_of_dice() -> None:
    low, high = curve(SCORES, FRAMES, grid=(0.31, 0.5))
    assert low.dice.all_frames.mean == pytest.approx(0.55)
    assert low.dice.present.mean == pytest.approx(0.6)
    assert low.dice.found.mean == pytest.approx(0.8)
    assert (low.dice.accepted.mean, low.dice.end_to_end.mean) == pytest.approx((0.54, 0.5875))
    assert (high.dice.accepted.mean, high.dice.end_to_end.mean) == pytest.approx((0.675, 0.5875))
    assert (low.accepted_share, high.accepted_share) == (5 / 8, 4 / 8)


def test_curve__where_no_frame_passes_its_means_are_no_numbers() -> None:
    (point,) = curve(SCORES, FRAMES, grid=(1.0,))
    assert math.isnan(point.dice.accepted.mean)
    assert point.dice.accepted.count == 0
    assert point.dice.end_to_end.mean == pytest.approx(0.5)


def test_curve__a_rejected_frame_without_a_consensus_had_nothing_to_find() -> None:
    has_consensus = PRESENT.copy()
    has_consensus[5] = False
    (point,) = curve(SCORES, replace(FRAMES, has_consensus=has_consensus), grid=(1.0,))
    assert point.dice.end_to_end.mean == pytest.approx(5 / 8)


def test_subjects_needed__one_over_alpha_less_one() -> None:
    assert [subjects_needed(alpha) for alpha in (0.1, 0.05, 0.2, 0.3, 0.5)] == [9, 19, 4, 3, 1]
    for alpha in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            subjects_needed(alpha)


def cohort(num_subjects: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Subjects of ten frames, whose present frames score around a level of their own."""
    rng = np.random.default_rng(seed)
    scores = np.clip(rng.normal(0.6, 0.15, (num_subjects, 1)) + rng.normal(0, 0.1, (num_subjects, 10)), 0, 1)
    present = np.tile(np.arange(10) < 6, num_subjects)
    return scores.ravel(), present, [str(each) for each in range(num_subjects) for _ in range(10)]


def test_risk_controlled__by_hand() -> None:
    # Nine subjects of one frame: (missed + 1) / 10 is at most .1 only where none is missed.
    scores = np.linspace(0.1, 0.9, 9)
    found = risk_controlled(scores, np.ones(9, bool), [str(each) for each in range(9)], 0.1)
    assert (scores > found.threshold).all()
    assert found.threshold == pytest.approx(0.1)
    # Nineteen: one may be missed, as (1 + 1) / 20 = .1.
    scores = np.linspace(0.05, 0.95, 19)
    found = risk_controlled(scores, np.ones(19, bool), [str(each) for each in range(19)], 0.1)
    assert (scores <= found.threshold).sum() == 1
    assert found.missed_share == pytest.approx(1 / 19)
    assert found.num_subjects == 19


def test_risk_controlled__new_subjects_miss_at_most_the_share() -> None:
    missed = []
    for seed in range(400):
        scores, present, subjects = cohort(21, seed)
        threshold = risk_controlled(scores[:200], present[:200], subjects[:200], 0.1).threshold
        new = scores[200:][present[200:]]
        missed.append((new <= threshold).mean())
    assert 0.05 < np.mean(missed) < 0.1 + 0.02  # the standard error is 0.008


def test_risk_controlled__too_few_subjects_are_refused_with_the_number_needed() -> None:
    scores, present, subjects = cohort(12, 0)
    present[: 4 * 10] = False  # four subjects without the organ say nothing about missed frames
    with pytest.raises(
        DataError, match=r"'8' calibration subjects have frames with the organ; a share of 0\.1 needs 9"
    ):
        risk_controlled(scores, present, subjects, 0.1)
    assert risk_controlled(scores, present, subjects, 0.12).num_subjects == 8


def test_risk_controlled__subjects_that_chose_the_threshold_are_refused() -> None:
    scores, present, subjects = cohort(12, 0)
    with pytest.raises(DataError, match="'1' subjects, such as '3', have chosen"):
        risk_controlled(scores, present, subjects, 0.1, chosen_on=["3", "40"])


def test_risk_controlled__frames_of_equal_score_fall_together() -> None:
    scores = np.full(20, 0.5, np.float32)
    found = risk_controlled(scores, np.ones(20, bool), [str(each) for each in range(20)], 0.1)
    assert found.missed_share == 0
    assert accepted(scores, found.threshold).all()
    assert (scores > np.float32(found.threshold)).all()
