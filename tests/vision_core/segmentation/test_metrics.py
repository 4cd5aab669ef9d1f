import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from vision_core.segmentation.metrics import Masks, average_precision, overlaps, size_of, surface_distances


def box(rows: slice, columns: slice, side: int = 16) -> Masks:
    mask = np.zeros((side, side), bool)
    mask[rows, columns] = True
    return mask


A, B = box(slice(3, 10), slice(4, 11)), box(slice(5, 12), slice(4, 13))
EMPTY = np.zeros((16, 16), bool)


def test_overlaps__published_numbers() -> None:
    b, i, j = np.ogrid[:2, :4, :5]
    predicted = ((7 * b + 3 * i + 5 * j) % 11 / 10 > 0.5).reshape(1, 8, 5)
    truth = ((2 * b + i + j) % 3 == 0).reshape(1, 8, 5)  # TP 3, FP 15, FN 11
    found = overlaps(predicted, truth)
    assert found.precision[0] == pytest.approx(3 / 18)
    assert found.recall[0] == pytest.approx(3 / 14)
    assert found.dice[0] == pytest.approx(0.1875)


def test_overlaps__of_empty_masks() -> None:
    found = overlaps(np.stack([EMPTY, EMPTY, A, A]), np.stack([EMPTY, A, EMPTY, B]))
    assert found.dice.tolist() == pytest.approx([1, 0, 0, 0.625])
    assert np.isnan(found.precision).tolist() == [True, True, False, False]
    assert np.isnan(found.recall).tolist() == [True, False, True, False]


def test_surface_distances__published_numbers() -> None:
    found = surface_distances(A, B)
    assert found.hausdorff == pytest.approx(2.828427, abs=1e-6)
    assert found.hausdorff_95 == pytest.approx(2.236068, abs=1e-6)
    assert found.mean == pytest.approx(1.409626, abs=1e-6)
    assert surface_distances(A, B, (0.29, 0.29)).hausdorff == pytest.approx(0.820244, abs=1e-6)


def test_surface_distances__rows_and_columns_have_their_own_spacing() -> None:
    one, other = box(slice(2, 3), slice(2, 3)), box(slice(5, 6), slice(6, 7))
    assert surface_distances(one, other, (2.0, 0.5)).hausdorff == pytest.approx(math.hypot(6, 2))


def test_surface_distances__an_empty_mask_has_none() -> None:
    assert surface_distances(EMPTY, A).hausdorff == math.inf
    assert surface_distances(A, EMPTY).mean == math.inf
    assert math.isnan(surface_distances(EMPTY, EMPTY).hausdorff_95)


def test_average_precision__as_scikit_learn_with_ties() -> None:
    random = np.random.default_rng(3)
    labels, scores = random.integers(0, 2, 200), random.random(200).round(3)
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-4)
    assert math.isnan(average_precision(np.zeros(3, int), np.zeros(3)))


def test_size_of__a_disc_and_an_ellipse_in_millimetres() -> None:
    rows, columns = np.mgrid[:200, :200]
    disc = (rows - 100.0) ** 2 + (columns - 100.0) ** 2 <= 60**2
    found = size_of(disc, (0.5, 0.5))
    assert found.area == pytest.approx(math.pi * 30**2, rel=0.01)
    assert found.longest == pytest.approx(60, abs=0.6)
    assert found.across == pytest.approx(60, abs=0.6)
    turned = ((rows + columns - 200) / 80) ** 2 + ((rows - columns) / 40) ** 2 <= 2
    longest, across = size_of(turned).longest, size_of(turned).across
    assert longest == pytest.approx(160, abs=1.5)
    assert across == pytest.approx(80, abs=1.5)


def test_size_of__pixels_that_are_not_square() -> None:
    found = size_of(box(slice(0, 10), slice(0, 1)), (0.2, 3.0))
    assert found.area == pytest.approx(6)
    assert found.longest == pytest.approx(math.hypot(2, 3), abs=0.15)
    assert size_of(EMPTY).longest == 0
