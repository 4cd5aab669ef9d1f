import numpy as np
import pytest

from pipelines.sfod.verdict.prototypes import distance_ratio

SOURCE = np.array([[0.0, 0], [3, 4], [0, 0]])
KNOWN = np.array([True, True, False])


def test_ratio__by_hand() -> None:
    """Means (1, 0) and (3, 5) lie √29 apart; they moved by 1 and 1."""
    sums, counts = np.array([[2.0, 0], [3, 5], [9, 9]]), np.array([2.0, 1, 3])
    assert distance_ratio(sums, counts, SOURCE, KNOWN) == pytest.approx(np.sqrt(29))


def test_ratio__of_many_draws_at_once() -> None:
    sums, counts = np.array([[2.0, 0], [3, 5], [9, 9]]), np.array([2.0, 1, 3])
    both = distance_ratio(np.stack([sums, 2 * sums]), np.stack([counts, 2 * counts]), SOURCE, KNOWN)
    assert both == pytest.approx([np.sqrt(29)] * 2)


@pytest.mark.parametrize("counts", [[2, 0, 3], [0, 0, 0]])
def test_ratio__of_one_class_says_nothing(counts: list[float]) -> None:
    assert np.isnan(distance_ratio(np.ones((3, 2)), np.array(counts, float), SOURCE, KNOWN))


def test_ratio__of_the_source_itself_says_nothing() -> None:
    assert np.isnan(distance_ratio(SOURCE, np.ones(3), SOURCE, KNOWN))
