"""Frames of the other simulator: refused without it, joined from what is there, scored; and imaged where it is."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ultrasound.pymust import STUDY, judge, make_frames
from benchmarks.ultrasound.pymust_frames import Simulator
from pipelines.ultrasound.config import UltrasoundData
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.phantom.study import Phantom
from vision_core.errors import MissingDependencyError

HAS_PYMUST = importlib.util.find_spec("pymust") is not None
SMALL = {**STUDY.protocol(), "subjects": {"test": 2}, "frames": 4}


@pytest.mark.skipif(HAS_PYMUST, reason="PyMUST is installed")
def test_make_frames__without_pymust_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install 'domainsight\[simulation\]'"):
        make_frames(tmp_path, SMALL)


def test_judge__frames_that_are_there_are_joined_and_scored(tmp_path: Path) -> None:
    for subject in (300, 301):  # of our own simulator, which the pair knows
        frames = list(Phantom(subject).cine(4))
        images, masks = np.stack([each.image for each in frames]), np.stack([each.masks for each in frames])
        np.savez(tmp_path / f"subject-{subject:04d}.npz", images=images, masks=masks)
    assert make_frames(tmp_path, SMALL) == []  # none is left for PyMUST to make
    lists = read_lists(UltrasoundData(root=tmp_path / "frames.h5"), ["test"])
    assert lists["test"].subjects == ("0300",) * 4 + ("0301",) * 4
    assert np.array_equal(lists["test"].read(7).image, images[3])
    found = judge(lists["test"])
    assert (found["frames"], found["outside"], found["outside_by_subject"]) == (8, 0, [0.0, 0.0])
    all_frames, predicted = found["decisions"].values()
    assert all_frames == predicted and sum(all_frames.values()) == 8
    assert found["screen"]["auroc"] > 0.5


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PYMUST, reason="PyMUST is not installed")
def test_simulator__images_an_organ_darker_than_what_is_around_it() -> None:
    frames = list(Simulator(3000, (128, 128)).cine(300, 4))
    assert [bool(each.masks.any()) for each in frames] == [False, True, True, False]
    organ = frames[1].masks.all(axis=0)
    around = ~frames[1].masks.any(axis=0) & (frames[1].image > 0)
    assert frames[1].image[organ].mean() < 0.8 * frames[1].image[around].mean()
