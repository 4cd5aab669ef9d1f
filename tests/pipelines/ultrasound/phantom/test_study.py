from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pipelines.ultrasound.data.formats.hdf5 import H5Frames
from pipelines.ultrasound.data.observers import is_present, pairwise_dice, vote
from pipelines.ultrasound.data.subjects import read_splits
from pipelines.ultrasound.phantom.machines import OTHER
from pipelines.ultrasound.phantom.observers import doubt
from pipelines.ultrasound.phantom.scene import Pose, Scene, section, tissue_in
from pipelines.ultrasound.phantom.study import LISTS, Phantom, PhantomFrame, write_study

SIZE = (96, 96)
SUBJECTS = range(4)


@pytest.fixture(scope="module")
def cines() -> list[list[PhantomFrame]]:
    return [list(Phantom(seed, size=SIZE).cine(20)) for seed in SUBJECTS]


def test_cine__the_organ_moves_in_and_out(cines: list[list[PhantomFrame]]) -> None:
    for cine in cines:
        present = [is_present(frame.masks) for frame in cine]
        assert not present[0]
        assert not present[-1]
        assert np.abs(np.diff(np.array(present).astype(int))).sum() == 2
        assert 0.3 < np.mean(present) < 0.8


def test_cine__observers_disagree_about_presence_only_near_the_ends(cines: list[list[PhantomFrame]]) -> None:
    split = 0
    for cine in cines:
        seen = np.array([frame.masks.any(axis=(1, 2)) for frame in cine])
        middle = np.flatnonzero(seen.all(axis=1))
        assert seen[middle[0] : middle[-1] + 1].all()
        split += int((seen.any(axis=1) & ~seen.all(axis=1)).sum())
    assert split >= len(cines)


def test_cine__observers_are_near_each_other_with_a_bias_of_their_own(cines: list[list[PhantomFrame]]) -> None:
    shared = [frame.masks for cine in cines for frame in cine if frame.masks.any(axis=(1, 2)).all()]
    dice = np.mean([pairwise_dice(masks)[np.triu_indices(3, 1)] for masks in shared])
    assert 0.85 < dice < 0.96
    areas = np.mean([masks.sum(axis=(1, 2)) for masks in shared], axis=0)
    assert areas[0] < areas[1] < areas[2]


def test_cine__contours_are_smooth(cines: list[list[PhantomFrame]]) -> None:
    for frame in cines[0]:
        for mask in frame.masks[frame.masks.sum(axis=(1, 2)) > 60]:
            assert ndimage.label(mask)[1] == 1
            smooth = ndimage.binary_opening(np.pad(mask, 2), iterations=1)[2:-2, 2:-2]
            assert (mask & ~smooth).sum() < 0.05 * mask.sum()


def test_doubt__is_larger_in_shadow_and_at_depth() -> None:
    phantom = Phantom(3)
    shaded = Pose(z=0.0, contact=((0.5, 0.15, 25.0),))
    scenes = [Scene(machine=phantom.machine, anatomy=phantom.anatomy, pose=pose) for pose in (Pose(z=0.0), shaded)]
    clear, dark = (doubt(scene, tissue_in(scene)) for scene in scenes)
    bottom, top = 32, 96  # a quarter and three quarters of 128 angles: away from the probe, and towards it
    assert clear[bottom] > clear[top]
    assert dark[bottom] > 1.3 * clear[bottom]


def test_frame__follows_from_seed_and_pose_alone(cines: list[list[PhantomFrame]]) -> None:
    frame = cines[2][11]
    alone = Phantom(2, size=SIZE).frame(frame.pose, 11)
    assert np.array_equal(alone.image, frame.image)
    assert np.array_equal(alone.masks, frame.masks)
    assert not np.array_equal(alone.image, Phantom(4, size=SIZE).frame(frame.pose, 11).image)


def test_frame__the_organ_is_darker_than_the_tissue_around() -> None:
    contrasts = []
    for seed in range(8):
        phantom = Phantom(seed, size=SIZE)
        frame = next(each for each in list(phantom.cine(9))[4:5])
        mask = vote(frame.masks)
        ring = ndimage.binary_dilation(mask, iterations=6) & ~ndimage.binary_dilation(mask, iterations=2)
        contrasts.append(frame.image[ring].mean() - frame.image[mask].mean())
    assert np.mean(np.array(contrasts) > 0) >= 0.75


def test_frame__look_alikes_are_found_in_frames_without_the_organ() -> None:
    shown = 0
    for seed in SUBJECTS:
        phantom = Phantom(seed, size=SIZE)
        others = [each for each in phantom.anatomy.others if each.kind in {"bladder", "muscle"}]
        for body in others:
            beyond = section(body, body.centre[2], phantom.raster.x, phantom.raster.y)
            shown += int(((beyond < 0) & phantom.raster.inside).sum() > 100)
            assert not phantom.frame(Pose(z=body.centre[2])).masks.any()
    assert shown >= len(SUBJECTS)


def test_frame__a_lifted_probe_shows_nothing_but_its_ringing() -> None:
    phantom = Phantom(1, size=SIZE)
    frame = phantom.frame(Pose(z=0.0, is_lifted=True))
    usual = phantom.frame(Pose(z=0.0))
    assert not frame.masks.any()
    assert usual.masks.any()
    assert frame.image[phantom.raster.inside].mean() < 0.5 * usual.image[phantom.raster.inside].mean()


def test_write_study__is_read_back_in_the_published_layout(tmp_path: Path) -> None:
    lists = {"train": 2, "test": 1, "other_machine": 1}
    told = write_study(tmp_path, size=(48, 64), frames=4, lists=lists)
    assert "synthetic" in told
    frames = H5Frames(tmp_path / "phantom.h5")
    assert frames.layout == "nested"
    assert len(frames.names) == 16
    splits = read_splits(tmp_path / "splits.json", {str(name.subject) for name in frames.names})
    assert {name: len(own) for name, own in splits.lists.items()} == lists
    first = frames.read(0)
    assert first.image.shape == (48, 64)
    assert first.observers == (0, 1, 2)
    expected = next(Phantom(0, size=(48, 64)).cine(4))
    assert np.array_equal(first.image, expected.image)
    other = next(Phantom(3, OTHER, size=(48, 64)).cine(4))
    assert np.array_equal(frames.read(12).image, other.image)


def test_lists__as_many_subjects_as_the_study_asks_for() -> None:
    assert LISTS["train"] >= 40
    assert LISTS["val"] >= 20
    assert LISTS["test"] >= 30
    assert LISTS["calibration"] >= 9  # for a share of missed frames of 0.1
