"""Recycling against the numbers of the specification (check C10), then its rules."""

import pytest
import torch

from pipelines.wsi.config import Recycling
from pipelines.wsi.mhim.recycling import Recycler, split
from tests.pipelines.wsi.waves import assert_near, wave

TILES = wave(3, 4, a=0.8, b=0.1)


def _recycler() -> Recycler:
    recycler = Recycler(4, tokens=2, heads=2, head_dim=2).double().eval()
    recycler.load_state_dict(
        {
            "queries": wave(2, 4, a=0.45, b=0.2, c=0.3),
            "norm.weight": 1 + wave(4, a=0.5, b=0.1, c=0.1),
            "norm.bias": wave(4, a=0.3, b=0.4, c=0.1),
            "to_key_value.weight": wave(8, 4, a=0.27, b=0.3),
            "to_query.weight": wave(4, 4, a=0.39, b=0.1),
            "output.weight": wave(4, 4, a=0.31, b=0.6),
            "output.bias": wave(4, a=0.2, b=0.7, c=0.1),
        }
    )
    return recycler


def test_forward__tokens() -> None:
    recycler = _recycler()
    attention = recycler.attention(recycler.norm(TILES))
    assert_near(attention[0], [[0.492792, 0.127472, 0.379736], [0.209397, 0.530014, 0.260589]])
    expected = [[0.923522, 0.539042, -0.470706, -0.728013], [0.494768, 0.128001, -0.308962, -0.211904]]
    assert_near(recycler(TILES), expected)


def test_follow__queries_move_towards_the_tokens() -> None:
    recycler = _recycler()
    recycler.follow(recycler(TILES), 0.9999)
    expected = [[0.059687, 0.181592, 0.267288, 0.299832], [0.272811, 0.191323, 0.071737, -0.062086]]
    assert_near(recycler.queries, expected)


def test_forward__queries_are_state_but_take_no_gradient() -> None:
    recycler = _recycler()
    recycler(TILES).sum().backward()
    assert recycler.queries.grad is None
    assert "queries" in recycler.state_dict()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in recycler.parameters())


def test_parameters__as_published() -> None:
    recycler = Recycler(512, tokens=5)
    assert sum(each.numel() for each in recycler.parameters()) + recycler.queries.numel() == 1_052_672
    assert recycler.queries.abs().max().item() == pytest.approx(0.068465, rel=0.01)


@pytest.mark.parametrize(
    ("count", "keep", "tiles"),
    [(37, 0.8, 29), (37, 0.2, 7), (15702, 0.8, 12561), (15702, 0.2, 3140), (50000, 0.2, 10000), (3, 0.2, 0), (9, 1, 9)],
)
def test_split__counts_are_rounded_down(count: int, keep: float, tiles: int) -> None:
    stay, recycled = split(torch.arange(count), Recycling(keep=keep))
    assert (len(stay), len(recycled)) == (tiles, count - tiles)


def test_split__every_tile_once() -> None:
    kept = torch.tensor([3, 5, 8, 13, 21])
    stay, recycled = split(kept, Recycling(keep=0.5))
    assert sorted([*stay.tolist(), *recycled.tolist()]) == kept.tolist()


def test_split__shuffled_unless_the_order_is_restored() -> None:
    kept, draws = torch.arange(0, 200, 2), torch.Generator().manual_seed(0)
    shuffled, _ = split(kept, Recycling(keep=0.8), draws)
    restored, _ = split(kept, Recycling(keep=0.8, restore_order=True), draws.manual_seed(0))
    assert shuffled.tolist() != sorted(shuffled.tolist())
    assert restored.tolist() == sorted(shuffled.tolist())
