from typing import Any, get_args

import numpy as np
import pytest
import torch

from pipelines.ultrasound.config import LabelMode
from pipelines.ultrasound.data.frames import Mask
from pipelines.ultrasound.data.observers import has_empty_consensus, is_present, pairwise_dice, target, vote
from vision_core.segmentation.losses import dice_loss


def observers() -> Mask:
    i, j = np.ogrid[:4, :5]
    return np.stack([(i - 1.5) ** 2 + (j - 1.5 - 0.5 * o) ** 2 <= (1.3 + 0.4 * o) ** 2 for o in range(3)])


def of_areas(*areas: int) -> Mask:
    return np.stack([(np.arange(10) < area).reshape(2, 5) for area in areas])


class Drawn:
    """A generator that gives prescribed numbers."""

    def __init__(self, shares: list[float], places: list[int]) -> None:
        self.shares, self.places = iter(shares), iter(places)

    def random(self) -> float:
        return next(self.shares)

    def integers(self, _: int) -> int:
        return next(self.places)


def test_vote__published_masks() -> None:
    masks = observers()
    assert masks.sum(axis=(1, 2)).tolist() == [4, 8, 12]
    consensus = vote(masks)
    assert ["".join(map(str, row.astype(int))) for row in consensus] == ["00100", "01110", "01110", "00100"]
    assert (masks.any(axis=0).sum(), masks.all(axis=0).sum()) == (12, 4)


def test_target__of_mean_and_expectation_of_combination() -> None:
    masks, rng = observers(), np.random.default_rng(0)
    assert target(masks, "mean", rng).sum() == pytest.approx(8)
    drawn = np.mean([target(masks, "combination", rng) for _ in range(6000)], axis=0)
    expected = 0.25 * vote(masks) + 0.75 * masks.mean(axis=0)
    assert np.abs(drawn - expected).max() < 0.03
    assert expected.sum() == pytest.approx(8)


def test_target__losses_against_each_published_target() -> None:
    _, i, j = np.ogrid[:1, :4, :5]
    p = torch.tensor((3 * i + 5 * j) % 11 / 10)[None]
    masks, rng = observers(), np.random.default_rng(0)
    targets = [target(masks, "mean", rng), target(masks, "vote", rng), *masks.astype(np.float32)]
    losses = [dice_loss(p, torch.tensor(each, dtype=torch.float64)[None, None]).item() for each in targets]
    assert losses == pytest.approx([0.540984, 0.453552, 0.790210, 0.453552, 0.452915], abs=1e-6)


@pytest.mark.parametrize(("k", "expected"), [(2, "001"), (4, "00011"), (5, "000111")])
def test_vote__a_tie_is_background(k: int, expected: str) -> None:
    masks = np.array([[[o < s for s in range(k + 1)]] for o in range(k)])
    assert "".join(map(str, vote(masks)[0].astype(int))) == expected


def test_target__combination_draws_the_consensus_below_its_share() -> None:
    masks = np.zeros((3, 1, 4), bool)
    masks[0, 0, 0] = masks[1, 0, 1] = masks[2, 0, 2] = True
    masks[:, 0, 3] = True
    drawn: Any = Drawn([0.10, 0.60, 0.24, 0.25, 0.99], [2, 0, 1, 2, 1])
    found = [target(masks, "combination", drawn)[0].tolist() for _ in range(5)]
    consensus, observer = [0, 0, 0, 1], masks[:, 0].astype(float).tolist()
    assert found == [consensus, observer[0], consensus, observer[2], observer[1]]


def test_target__every_mode_takes_the_same_draws() -> None:
    def after(mode: LabelMode) -> float:
        rng = np.random.default_rng(5)
        target(observers(), mode, rng)
        return rng.random()

    assert len({after(mode) for mode in get_args(LabelMode)}) == 1


@pytest.mark.parametrize("mode", get_args(LabelMode))
def test_target__one_observer_is_the_target_and_empty_masks_give_none(mode: LabelMode) -> None:
    rng = np.random.default_rng(0)
    assert (target(observers()[1:2], mode, rng) == observers()[1]).all()
    assert target(np.zeros((3, 4, 5), bool), mode, rng).sum() == 0


def test_is_present__published_areas() -> None:
    areas = ([5, 7, 0], [0, 0, 3], [0, 0, 0], [4, 4, 4], [9, 0, 1])
    assert [is_present(of_areas(*each)) for each in areas] == [True, False, False, True, True]
    assert not is_present(of_areas(3, 0))


def test_is_present__observers_may_agree_on_no_pixel() -> None:
    masks = np.zeros((3, 1, 4), bool)
    masks[0, 0, 0] = masks[1, 0, 3] = True
    assert is_present(masks)
    assert not is_present(masks, "consensus_nonempty")
    assert has_empty_consensus(masks)
    assert not has_empty_consensus(observers())


def test_pairwise_dice__published_masks_and_empty_ones() -> None:
    found = pairwise_dice(observers())
    assert [found[0, 1], found[0, 2], found[1, 2]] == pytest.approx([2 / 3, 0.5, 0.8])
    assert pairwise_dice(of_areas(0, 0, 3))[:2].tolist() == [[1, 1, 0], [1, 1, 0]]
