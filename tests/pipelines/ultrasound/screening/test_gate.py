import math

import numpy as np
import pytest

from pipelines.ultrasound.screening.gate import FrameCounts, accepted, count_frames, gated
from vision_core.errors import DataError

SCORES = np.array([0.92, 0.15, 0.40, 0.05, 0.73, 0.31, 0.60, 0.58])
PRESENT = np.array([1, 0, 1, 0, 1, 1, 0, 0], bool)
AREAS = np.array([120, 14, 0, 0, 95, 60, 33, 0])


def numbers(counts: FrameCounts) -> tuple[int, int, int, int]:
    return counts.true_positive, counts.false_positive, counts.false_negative, counts.true_negative


def test_count_frames__segmenter_alone() -> None:
    found = count_frames(AREAS > 0, PRESENT)
    assert numbers(found) == (3, 2, 1, 2)
    assert [found.precision, found.recall, found.specificity, found.f1] == pytest.approx([0.6, 0.75, 0.5, 2 / 3])
    assert found.accuracy == pytest.approx(5 / 8)
    assert found.false_positive_rate == pytest.approx(0.5)
    assert found.false_negative_rate == pytest.approx(0.25)


@pytest.mark.parametrize(("threshold", "expected"), [(0.2, (4, 2, 0, 2)), (0.31, (3, 2, 1, 2)), (0.5, (2, 2, 2, 2))])
def test_count_frames__classifier_alone(threshold: float, expected: tuple[int, ...]) -> None:
    assert numbers(count_frames(accepted(SCORES, threshold), PRESENT)) == expected


@pytest.mark.parametrize(("threshold", "expected"), [(0.2, (3, 1, 1, 3)), (0.5, (2, 1, 2, 3)), (0.6, (2, 0, 2, 4))])
def test_count_frames__both_together(threshold: float, expected: tuple[int, ...]) -> None:
    assert numbers(count_frames(accepted(SCORES, threshold) & (AREAS > 0), PRESENT)) == expected


def test_count_frames__a_share_of_nothing_is_no_number() -> None:
    none = count_frames(np.zeros(3, bool), np.zeros(3, bool))
    assert math.isnan(none.precision)
    assert math.isnan(none.recall)
    assert math.isnan(none.f1)
    assert none.specificity == 1
    assert math.isnan(count_frames(np.zeros(0, bool), np.zeros(0, bool)).accuracy)


def test_accepted__all_at_zero_and_none_at_one() -> None:
    assert accepted(SCORES, 0).all()
    assert not accepted(SCORES, 1).any()


def test_accepted__a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match="'1' of 2 frames have a score that is no number"):
        accepted(np.array([0.3, np.nan]), 0.5)


def test_gated__rejected_frames_have_empty_masks() -> None:
    masks = np.ones((8, 2, 3), bool)
    found = gated(masks, SCORES, 0.5)
    assert found.any(axis=(1, 2)).tolist() == (SCORES > 0.5).tolist()
    assert masks.all()
