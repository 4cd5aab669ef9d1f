import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.ultrasound.evaluation.band import band, compare_bands, coverage, width


def square(first: int, last: int, side: int = 9) -> NDArray[np.bool_]:
    """Rows and columns ``first`` to ``last``."""
    found = np.zeros((side, side), bool)
    found[first : last + 1, first : last + 1] = True
    return found


INNER, MIDDLE, OUTER = square(3, 5), square(2, 6), square(1, 7)  # 9, 25 and 49 pixels, contours of 8, 16 and 24


def test_band__between_two_contours_both_included() -> None:
    found = band(np.stack([INNER, OUTER]).mean(axis=0))
    assert found.sum() == 48  # all of the outer one but the pixel inside the contour of the inner one
    assert not found[4, 4]
    assert found[3, 3]
    assert found[1, 1]
    assert band(np.stack([MIDDLE, MIDDLE]).mean(axis=0)).sum() == 16  # those who agree leave their contour alone


def test_band__of_probabilities_by_level() -> None:
    row = np.array([[0.05, 0.1, 0.2, 0.5, 0.9, 0.95, 0.95, 0.95]])
    assert band(np.repeat(row, 3, axis=0), 0.1)[1].tolist() == [False, False, True, True, True, False, False, True]
    # In the middle row 0.9 is the contour of what is sure on the left, and the image ends on the right.


def test_coverage_and_width__by_hand() -> None:
    found = band(np.stack([INNER, MIDDLE]).mean(axis=0))  # 24 pixels
    assert coverage(found, OUTER) == 0
    assert coverage(found, MIDDLE) == 1
    shifted = np.roll(MIDDLE, 1, axis=1)  # columns 3 to 7: of its 16 contour pixels 5 lie in column 7
    assert coverage(found, shifted) == 11 / 16
    assert width(found, MIDDLE) == 24 / 16
    empty = np.zeros_like(MIDDLE)
    assert np.isnan([coverage(found, empty), width(found, empty)]).all()


def test_compare__each_observer_against_the_others() -> None:
    found = compare_bands(None, np.stack([INNER, MIDDLE, OUTER]))
    # Inner against middle and outer: their band has 49 - 9 = 40 pixels, none of the inner contour's 8. Outer against
    # inner and middle: 0. Middle against inner and outer: all 16 in the band of 48. Widths over 16: 40, 24, 48.
    assert found["observers_coverage"] == pytest.approx(1 / 3)
    assert found["observers_width"] == pytest.approx((40 + 24 + 48) / 3 / 16)
    assert np.isnan([found["coverage"], found["width"]]).all()


def test_compare__a_model_whose_probabilities_are_the_observers_mean_covers_them() -> None:
    masks = np.stack([INNER, MIDDLE, OUTER])
    found = compare_bands(masks.mean(axis=0, dtype=np.float32), masks)
    assert found["coverage"] == 1
    assert found["width"] == 48 / 16
    sure = compare_bands(MIDDLE.astype(np.float32), masks)
    assert sure["coverage"] == pytest.approx(1 / 3)  # its contour alone
    assert sure["width"] == 1


def test_compare__empty_masks_are_left_out_and_a_missed_organ_is_not() -> None:
    empty = np.zeros_like(MIDDLE)
    half = compare_bands(np.zeros(MIDDLE.shape, np.float32), np.stack([MIDDLE, MIDDLE, empty]))
    assert half["coverage"] == 0
    assert half["observers_coverage"] == 1  # each of the two lies in the band of the other and the empty one
    none = compare_bands(np.zeros(MIDDLE.shape, np.float32), np.stack([empty, empty]))
    assert np.isnan(list(none.values())).all()
    assert np.isnan(compare_bands(None, MIDDLE[None])["observers_coverage"])
