"""Assignment in strata: the numbers of the specification (P8), and a loop over the regions."""

import pytest
import torch
from torch import Tensor

from pipelines.ovd.methods.matching import ordinary_match, stratified_match

IOU = torch.tensor(
    [
        [0.80, 0.55, 0.30, 0.00, 0.49, 0.50, 0.10, 0.70],
        [0.10, 0.20, 0.00, 0.60, 0.20, 0.00, 0.00, 0.75],
        [0.85, 0.30, 0.62, 0.00, 0.70, 0.90, 0.30, 0.20],
        [0.20, 0.58, 0.50, 0.65, 0.49, 0.20, 0.45, 0.90],
    ]
)
BASE = torch.tensor([True, True, False, False])


def _matched(found: tuple[Tensor, Tensor]) -> list[int | None]:
    """The row of each region, None for background."""
    return [row if matched else None for row, matched in zip(found[0].tolist(), found[1].tolist(), strict=True)]


def by_loop(iou: Tensor, base: Tensor, threshold: float) -> list[int | None]:
    """The same, a region after the other."""
    found: list[int | None] = []
    for column in range(iou.shape[1]):
        best: int | None = None
        for stratum in (True, False):
            rows = [row for row in range(len(iou)) if bool(base[row]) is stratum and iou[row, column] >= threshold]
            if rows and best is None:
                best = max(rows, key=lambda row: (float(iou[row, column]), -row))
        found.append(best)
    return found


def test_stratified__base_boxes_win() -> None:
    assert _matched(stratified_match(IOU, BASE)) == [0, 0, 2, 1, 2, 0, None, 1]


def test_ordinary__the_larger_overlap_wins() -> None:
    assert _matched(ordinary_match(IOU)) == [2, 3, 2, 3, 2, 2, None, 3]


@pytest.mark.parametrize("is_base", [True, False])
def test_stratified__rows_of_one_kind_are_matched_in_one_go(is_base: bool) -> None:
    assert _matched(stratified_match(IOU, torch.full((4,), is_base))) == _matched(ordinary_match(IOU))


def test_threshold__is_inclusive() -> None:
    iou = torch.tensor([[0.5, 0.4999]])
    assert stratified_match(iou, torch.tensor([True]))[1].tolist() == [True, False]
    assert stratified_match(iou, torch.tensor([False]))[1].tolist() == [True, False]
    assert ordinary_match(iou)[1].tolist() == [True, False]


@pytest.mark.parametrize("match", [ordinary_match, lambda iou: stratified_match(iou, torch.zeros(0, dtype=torch.bool))])
def test_match__without_a_box_all_is_background(match: object) -> None:
    row, matched = match(torch.empty(0, 5))  # type: ignore[operator]
    assert row.tolist() == [0] * 5
    assert not matched.any()


@pytest.mark.parametrize("seed", range(20))
def test_stratified__equals_the_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (int(torch.randint(0, 7, (), generator=generator)) for _ in range(2))
    iou = torch.rand(rows, columns, generator=generator)
    base = torch.rand(rows, generator=generator) < 0.5
    for threshold in (0.3, 0.5, 0.7):
        assert _matched(stratified_match(iou, base, threshold)) == by_loop(iou, base, threshold)


def test_stratified__order_of_the_rows_does_not_matter() -> None:
    order = torch.tensor([3, 1, 2, 0])
    found = _matched(stratified_match(IOU[order], BASE[order]))
    original = _matched(stratified_match(IOU, BASE))
    assert [None if row is None else int(order[row]) for row in found] == original
