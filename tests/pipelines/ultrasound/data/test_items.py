from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.data.items import TrainingFrames
from pipelines.ultrasound.data.lists import FrameList, read_lists
from pipelines.ultrasound.data.observers import vote
from tests.pipelines.ultrasound.tiny import FRAMES, SIZE, make_h5, words
from vision_core.config.loading import load


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_h5(tmp_path_factory.mktemp("frames"))


def opened(root: Path, *more: str) -> tuple[FrameList, UltrasoundConfig]:
    config = load(UltrasoundConfig, None, words(root, *more))
    return read_lists(config.data, ["train"])["train"], config


def items(root: Path, *more: str) -> TrainingFrames:
    frames, config = opened(root, *more)
    return TrainingFrames(frames, range(len(frames)), config)


def test_items__of_a_segmenter_follow_from_seed_epoch_and_index(root: Path) -> None:
    found = items(root, "augment.affine=1")
    batch = found.collate([found[3, index] for index in (0, 1)])
    assert batch.frames.shape == (2, 1, *SIZE)
    assert batch.targets is not None
    assert batch.targets.shape == (2, 1, *SIZE)
    assert batch.present.tolist() == [0, 1]
    assert torch.equal(found[3, 1].frames, batch.frames[1:])
    assert not torch.equal(found[4, 1].frames, batch.frames[1:])
    assert not torch.equal(items(root, "train.seed=1", "augment.affine=1")[3, 1].frames, batch.frames[1:])


@pytest.mark.parametrize("mode", ["random", "vote", "mean", "combination"])
def test_items__label_modes_reach_the_target(mode: str, root: Path) -> None:
    found = items(root, f"labels.sampling={mode}", "augment.flip=0", "augment.affine=0", "augment.speckle=0")
    masks = found.frames.read(1).masks
    drawn = [found[epoch, 1].targets for epoch in range(20)]
    sums = sorted({float(each.sum()) for each in drawn if each is not None})
    large, small = float(vote(masks).sum()), float(masks[2].sum())
    expected = {
        "vote": [large],
        "mean": [(2 * large + small) / 3],
        "random": [small, large],
        "combination": [small, large],
    }
    assert sums == pytest.approx(expected[mode])


def test_items__one_random_frame_of_each_subject_where_frames_are_nested(root: Path) -> None:
    found = items(root, "data.frames_per_subject=auto", "augment.flip=0", "augment.affine=0")
    assert found.is_one_a_subject
    assert len(found) == 4
    assert found.names([0, 3]) == ["0000", "0003"]
    seen = {float(found[epoch, 2].present) for epoch in range(12)}
    assert seen == {0.0, 1.0}


def test_items__of_a_screen_are_the_whole_frame_from_0_to_1(root: Path) -> None:
    found = items(root, "method=screen", "screen.side_px=64")
    item = found[0, 1]
    assert item.targets is None
    assert item.frames.shape == (1, 1, 64, 64)
    assert 0 <= float(item.frames.min()) < float(item.frames.max()) <= 1
    assert found.collate([item, item]).targets is None


def test_items__resized_frames_keep_their_masks_in_place(root: Path) -> None:
    still = ("augment.flip=0", "augment.affine=0", "augment.speckle=0", "labels.sampling=vote")
    frames, _ = opened(root)
    item = items(root, "data.size_px=[64,72]", *still)[0, 1]
    assert item.frames.shape == (1, 1, 64, 72)
    assert item.targets is not None
    assert np.array_equal(item.targets[0, 0, ::2, ::2].numpy() > 0, vote(frames.read(1).masks))
    assert len(frames) == 4 * FRAMES
