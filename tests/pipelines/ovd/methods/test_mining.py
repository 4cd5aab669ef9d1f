"""Online mining and burn-in against the numbers of the specification (P6, P7)."""

import pytest
import torch

from pipelines.ovd.methods.mining import burn_in_keep, mine, novelty, relative_novelty

NOVEL = torch.tensor([False, True, False, True])
P = torch.tensor(
    [
        [0.05, 0.60, 0.05, 0.10, 0.20],
        [0.10, 0.30, 0.10, 0.10, 0.40],
        [0.70, 0.02, 0.10, 0.03, 0.15],
        [0.10, 0.05, 0.05, 0.02, 0.78],
        [0.20, 0.33, 0.02, 0.30, 0.15],
        [0.90, 0.01, 0.04, 0.01, 0.04],
    ]
)
CLIP = torch.tensor([0.96, 0.99, 0, 0.97, 0.78, 0])
BASE = torch.tensor([False, False, True, False, False, True])


def test_mine__novelty_and_scores() -> None:
    mined = mine(P, CLIP, BASE, NOVEL)
    torch.testing.assert_close(mined.novelty, torch.tensor([0.70, 0.40, 0.05, 0.07, 0.63, 0.02]), atol=1e-6, rtol=0)
    relative = relative_novelty(mined.novelty, BASE)
    torch.testing.assert_close(relative, torch.tensor([1, 0.571429, 0.071429, 0.1, 0.9, 0.028571]), atol=1e-5, rtol=0)
    torch.testing.assert_close(mined.score, torch.tensor([0.98, 0.780714, 1, 0.535, 0.84, 1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.9, [0, 2, 5]), (0.8, [0, 2, 4, 5]), (0.85, [0, 2, 5]), (0.95, [0, 2, 5])]
)
def test_mine__kept(threshold: float, kept: list[int]) -> None:
    assert mine(P, CLIP, BASE, NOVEL, threshold=threshold).keep.nonzero().flatten().tolist() == kept


def test_mine__a_lone_candidate_is_the_most_novel_of_its_image() -> None:
    row, one = torch.tensor([[0.3, 0.02, 0.3, 0.01, 0.37]]), torch.zeros(1, dtype=torch.bool)
    mined = mine(row, torch.tensor([0.81]), one, NOVEL)
    assert mined.score.item() == pytest.approx(0.905, abs=1e-6)
    assert mined.novelty.item() == pytest.approx(0.03, abs=1e-6)
    assert mined.keep.item()
    assert not mine(row, torch.tensor([0.81]), one, NOVEL, min_novelty=0.05).keep.item()


@pytest.mark.parametrize(("norm", "score", "keep"), [("all", 0.85, False), ("candidates", 0.975, True)])
def test_mine__maximum_over_all_boxes_or_candidates(norm: str, score: float, keep: bool) -> None:
    rows = torch.tensor([[0.10, 0.55, 0.05, 0.25, 0.05], [0.05, 0.50, 0.05, 0.10, 0.30]])
    base = torch.tensor([True, False])
    mined = mine(rows, torch.tensor([0.0, 0.95]), base, NOVEL, norm=norm)  # type: ignore[arg-type]
    assert mined.score[1].item() == pytest.approx(score, abs=1e-6)
    assert mined.keep.tolist() == [True, keep]


def test_mine__a_base_box_is_kept_whatever_its_novelty() -> None:
    mined = mine(P, CLIP, BASE, NOVEL, min_novelty=0.99)
    assert mined.keep.tolist() == BASE.tolist()


def test_mine__no_novelty_at_all_counts_as_none() -> None:
    row = torch.tensor([[0.5, 0.0, 0.2, 0.0, 0.3]])
    mined = mine(row, torch.tensor([0.99]), torch.zeros(1, dtype=torch.bool), NOVEL)
    assert mined.score.item() == pytest.approx(0.495)
    assert not mined.keep.item()


def test_mine__no_box() -> None:
    none = torch.zeros(0)
    mined = mine(torch.zeros(0, 5), none, none.bool(), NOVEL)
    assert len(mined.keep) == len(mined.score) == len(mined.novelty) == 0
    assert len(relative_novelty(none, none.bool(), "candidates")) == 0


def test_mine__permuted_classes_and_rows_give_the_same() -> None:
    classes, rows = torch.tensor([3, 1, 0, 2]), torch.tensor([4, 0, 2, 5, 1, 3])
    permuted = mine(P[rows][:, [*classes.tolist(), 4]], CLIP[rows], BASE[rows], NOVEL[classes])
    torch.testing.assert_close(permuted.score, mine(P, CLIP, BASE, NOVEL).score[rows])


def test_novelty__no_novel_class() -> None:
    assert not novelty(P, torch.zeros(4, dtype=torch.bool)).any()


@pytest.mark.parametrize(("threshold", "kept"), [(0.9, [1, 1, 1, 0, 0, 0]), (0.8, [1, 1, 1, 1, 1, 1])])
def test_burn_in__threshold_is_inclusive(threshold: float, kept: list[int]) -> None:
    confidence = torch.tensor([1, 0.95, 0.9, 0.89999, 0.85, 0.8])
    assert burn_in_keep(confidence, torch.zeros(6, dtype=torch.bool), threshold).int().tolist() == kept


def test_burn_in__a_base_box_stays_whatever_its_confidence() -> None:
    assert burn_in_keep(torch.tensor([0.1]), torch.tensor([True])).item()
