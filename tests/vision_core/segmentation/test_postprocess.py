import numpy as np
import pytest
import torch

from vision_core.segmentation.postprocess import largest_component, mean_of_members, to_mask, vote_of_members

MEMBERS = [np.array(each, np.float32) for each in ((0.9, 0.2, 0.45, 0.6), (0.4, 0.7, 0.55, 0.6), (0.3, 0.1, 0.6, 0.2))]


def blocks() -> np.ndarray:
    mask = np.zeros((10, 10), bool)
    mask[1:4, 1:4] = mask[6:9, 5:9] = mask[4, 4] = True
    return mask


def test_largest_component__of_three() -> None:
    assert blocks().sum() == 22
    kept = largest_component(blocks())
    assert kept.sum() == 12
    assert kept[6:9, 5:9].all()


def test_largest_component__empty_stays_empty_and_one_stays_as_it_is() -> None:
    empty, one = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    one[2:5, 2:5] = True
    assert largest_component(empty).sum() == 0
    assert largest_component(one).sum() == 9


def test_largest_component__of_equal_ones_the_first_row_by_row() -> None:
    mask = np.zeros((9, 12), bool)
    mask[5:7, 0:2] = mask[1:3, 9:11] = mask[5:7, 6:8] = True
    assert largest_component(mask)[1:3, 9:11].all()
    assert largest_component(mask).sum() == 4


def test_largest_component__corners_do_not_join() -> None:
    assert largest_component(np.eye(3, dtype=bool)).sum() == 1


def test_to_mask__one_half_is_background() -> None:
    assert to_mask(np.array([[0.5, 0.50001, np.nan]], np.float32)).tolist() == [[False, True, False]]


def test_mean_of_members__then_threshold() -> None:
    mean = mean_of_members(MEMBERS)
    assert mean.tolist() == pytest.approx([0.533333, 0.333333, 0.533333, 0.466667], abs=1e-6)
    assert (mean > 0.5).tolist() == [True, False, True, False]
    from monai.transforms.post.array import MeanEnsemble  # here, as every process of pytest would take a second for it

    theirs = MeanEnsemble()([torch.from_numpy(each) for each in MEMBERS])
    assert mean == pytest.approx(np.asarray(theirs))


def test_vote_of_members__differs_from_the_mean() -> None:
    masks = [each > 0.5 for each in MEMBERS]
    assert vote_of_members(masks).tolist() == [False, False, True, True]
    from monai.transforms.post.array import VoteEnsemble

    theirs = VoteEnsemble()([torch.from_numpy(each).float() for each in masks])
    assert vote_of_members(masks).tolist() == np.asarray(theirs > 0).tolist()


def test_vote_of_members__a_tie_is_background() -> None:
    assert vote_of_members([np.array([True, True]), np.array([False, True])]).tolist() == [False, True]
