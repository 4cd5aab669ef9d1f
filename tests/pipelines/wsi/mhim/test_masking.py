"""Masks against the numbers of the specification (checks C2 to C4), then their rules."""

import pytest
import torch
from torch import Tensor

from pipelines.wsi.config import Fusion, Masking
from pipelines.wsi.mhim.masking import (
    candidates,
    keep_instances,
    kept_indices,
    mask_counts,
    random_mask,
    select_mask,
    union_masks,
)
from vision_core.errors import TrainingError

CPU = torch.device("cpu")
SINGLE = torch.sin(1.7 * torch.arange(20))[None]
HEADS = torch.sin(1.3 * torch.arange(1, 17) + 0.4 * torch.arange(4)[:, None])
NOTHING = Masking(random=0.0, low=0.0, high=0.0, high_pool=1.0)


def _set(indices: Tensor) -> list[int]:
    return sorted(indices.tolist())


@pytest.mark.parametrize(
    ("count", "pairs", "random", "low"),
    [
        (37, [(2, 2), (1, 1), (3, 2)], 19, 30),
        (1000, [(30, 30), (20, 10), (60, 30)], 500, 800),
        (9000, [(270, 270), (180, 90), (540, 270)], 4500, 7200),
        (15702, [(472, 472), (315, 158), (943, 472)], 7851, 12562),
        (50000, [(1500, 1500), (1000, 500), (3000, 1500)], 25000, 40000),
    ],
)
def test_mask_counts__table(count: int, pairs: list[tuple[int, int]], random: int, low: int) -> None:
    settings = ((0.03, 1.0), (0.01, 0.5), (0.03, 0.5))
    assert [mask_counts(count, ratio, pool) for ratio, pool in settings] == pairs
    assert mask_counts(count, 0.8) == (low, low)
    assert len(random_mask(count, 0.5, CPU)) == random


def test_mask_counts__artefact_of_double_precision_is_kept() -> None:
    assert mask_counts(100, 0.07) == (8, 8)


def test_mask_counts__pool_smaller_than_ratio_takes_the_ratio_of_all() -> None:
    assert mask_counts(10, 0.6, pool=0.5) == (10, 6)


def test_mask_counts__vanishing_ratio_still_masks_one() -> None:
    assert mask_counts(1000, 6e-9) == (1, 1)
    assert mask_counts(1000, 6e-9, pool=0.5) == (1, 1)
    assert mask_counts(1000, 0.0, pool=0.5) == (0, 0)


@pytest.mark.parametrize(("ratio", "masked"), [(0.03, [12]), (0.1, [1, 12]), (0.25, [1, 5, 8, 12, 16])])
def test_select_mask__highest_of_one_row(ratio: float, masked: list[int]) -> None:
    assert _set(select_mask(SINGLE, ratio, largest=True)) == masked


def test_select_mask__lowest_of_one_row() -> None:
    assert _set(select_mask(SINGLE, 0.2, largest=False)) == [3, 10, 14, 18]


def test_keep_instances__low_and_high() -> None:
    kept = keep_instances(SINGLE, NOTHING.model_copy(update={"low": 0.2}), high=0.1)
    assert kept.tolist() == [0, 2, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17, 19]


def test_select_mask__drawn_from_a_pool() -> None:
    ranked = candidates(SINGLE, 10, largest=True)
    assert ranked.tolist() == [12, 1, 16, 8, 5, 19, 4, 9, 15, 0]
    assert _set(ranked[torch.tensor([3, 1, 4, 0, 2, 9, 8, 7, 6, 5])[:5]]) == [1, 5, 8, 12, 16]
    order = torch.randperm(10, generator=torch.Generator().manual_seed(7))
    drawn = select_mask(SINGLE, 0.25, True, pool=0.5, generator=torch.Generator().manual_seed(7))
    assert drawn.tolist() == ranked[order[:5]].tolist()


def test_candidates__votes_of_four_heads() -> None:
    per_head = [_set(candidates(row[None], 7, largest=True)) for row in HEADS]
    assert per_head == [
        [0, 1, 5, 9, 10, 14, 15],
        [0, 4, 5, 9, 10, 14, 15],
        [0, 4, 5, 9, 10, 14, 15],
        [0, 4, 5, 8, 9, 13, 14],
    ]
    assert _set(select_mask(HEADS, 0.4, largest=True)) == [0, 4, 5, 9, 10, 14, 15]


def test_candidates__votes_second_case() -> None:
    scores = torch.sin(0.9 * torch.arange(1, 17) + 0.3 * torch.arange(4)[:, None])
    assert _set(select_mask(scores, 0.25, largest=True)) == [0, 1, 7, 14]


@pytest.mark.parametrize(("ratio", "masked"), [(0.25, [6, 7, 10]), (0.5, [1, 3, 6, 7, 8, 10])])
def test_candidates__average_joins_a_part_of_each_head(ratio: float, masked: list[int]) -> None:
    scores = torch.sin(torch.arange(1, 4)[:, None] * torch.arange(1, 13))
    assert _set(select_mask(scores, ratio, largest=True, fusion="average")) == masked


def test_select_mask__averaged_rows_mask_a_share_of_the_candidates_that_there_are() -> None:
    scores = torch.arange(110.0).expand(2, -1).clone()
    scores[1, :5] += 1000  # the rows share six of their eleven highest
    chosen = candidates(scores, 22, largest=True, fusion="average")
    assert len(chosen) == 16
    assert len(select_mask(scores, 0.1, largest=True, pool=0.5, fusion="average")) == 8  # not half of 22
    assert len(select_mask(scores, 0.1, largest=True, pool=0.5, fusion="vote")) == 11


def test_candidates__equal_votes_go_to_the_more_extreme_sum_then_to_the_lower_index() -> None:
    scores = torch.tensor([[9.0, 0, 0, 5, 0, 0], [0.0, 0, 0, 0, 7, 0]])
    assert candidates(scores, 1, largest=True).tolist() == [0]
    assert candidates(-scores, 1, largest=False).tolist() == [0]
    assert candidates(torch.zeros(3, 5), 2, largest=True).tolist() == [0, 1]


@pytest.mark.parametrize("largest", [True, False])
def test_candidates__ties_in_a_row_go_to_the_lower_index(largest: bool) -> None:
    assert candidates(torch.ones(1, 100), 3, largest).tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [2, 3, 7, 100])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("fusion", ["vote", "average"])
def test_keep_instances__properties(count: int, heads: int, fusion: Fusion) -> None:
    scores = torch.randn(heads, count)
    masks = [
        random_mask(count, 0.5, CPU),
        select_mask(scores, 0.3, largest=False, fusion=fusion),
        select_mask(scores, 0.2, largest=True, pool=0.5, fusion=fusion),
    ]
    for mask in masks:
        assert len(set(mask.tolist())) == len(mask)
        assert set(mask.tolist()) <= set(range(count))
    masked = union_masks(masks, count)
    kept = kept_indices(masked)
    assert _set(torch.cat([kept, masked.nonzero()[:, 0]])) == list(range(count))
    assert kept.tolist() == _set(kept)


def test_keep_instances__same_draws_same_tiles() -> None:
    masking = Masking(random=0.5, high=0.2, high_pool=0.5)
    scores = torch.randn(1, 50)
    kept = [keep_instances(scores, masking, 0.2, torch.Generator().manual_seed(3)).tolist() for _ in range(2)]
    assert kept[0] == kept[1]
    assert kept[0] != keep_instances(scores, masking, 0.2, torch.Generator().manual_seed(4)).tolist()


def test_keep_instances__counts_of_the_published_run() -> None:
    scores = torch.randn(1, 15702)
    kept = keep_instances(scores, Masking(), 0.01)
    assert len(kept) == pytest.approx(7693 + 158 / 2, abs=40)


def test_keep_instances__one_tile_is_never_masked() -> None:
    assert keep_instances(torch.zeros(1, 1), Masking(random=1.0), 1.0).tolist() == [0]


def test_keep_instances__all_masked_gives_back_the_best_that_is_not_hard() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.3]])
    assert keep_instances(scores, NOTHING.model_copy(update={"random": 1.0}), 0.25).tolist() == [2]
    assert keep_instances(scores, NOTHING, 1.0).tolist() == [0]


def test_keep_instances__nothing_to_mask_keeps_all() -> None:
    assert keep_instances(SINGLE, NOTHING, 0.0).tolist() == list(range(20))


def test_keep_instances__not_a_number_is_refused() -> None:
    scores = SINGLE.clone()
    scores[0, 3] = torch.nan
    with pytest.raises(TrainingError, match="'1' of 20 tiles"):
        keep_instances(scores, Masking(), 0.01)
