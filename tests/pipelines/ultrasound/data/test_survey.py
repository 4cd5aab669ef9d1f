from pathlib import Path

import h5py
import numpy as np
import pytest

from pipelines.ultrasound.config import UltrasoundData
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.data.survey import refuse_dark, refuse_shared_frames, survey
from tests.pipelines.ultrasound.tiny import FRAMES, SIZE, SUBJECTS, make_h5
from vision_core.errors import DataError, InputError

IMAGE = np.arange(30, dtype=np.uint8).reshape(5, 6)
MASK = (IMAGE > 12).astype(np.uint8)


def test_survey__presence_sizes_and_a_hash_of_all_that_is_trained_on(tmp_path: Path) -> None:
    data = UltrasoundData(root=make_h5(tmp_path))
    found = survey(read_lists(data, ["train"])["train"])
    assert found.present.tolist() == [False, True] * (SUBJECTS["train"] * FRAMES // 2)
    assert set(found.sizes) == {SIZE}
    assert found.notes == ("train: 8 of 16 frames show the organ; observers: 3 on 16 frames.",)
    assert not found.faults
    with h5py.File(tmp_path / "frames.h5", "a") as file:
        file["label_0000_001_02"][...] = 0
    assert survey(read_lists(data, ["train"])["train"]).manifest != found.manifest


def test_survey__sixteen_bits_of_which_few_are_used_are_told_and_refused_for_a_screen(tmp_path: Path) -> None:
    data = UltrasoundData(root=make_h5(tmp_path))
    with h5py.File(tmp_path / "frames.h5", "a") as file:
        for subject in range(3):
            for number in range(FRAMES):
                name = f"frame_{subject:04d}_{number:03d}"
                values = file[name][...].astype(np.uint16)
                del file[name]
                file[name] = values * np.uint16({0: 1, 1: 1 if number else 257, 2: 257}[subject])
    found = survey(read_lists(data, ["train"])["train"])
    assert len(found.dark) == 1  # the second subject has a bright frame among dark ones
    assert found.dark[0].startswith("'train': 4 frames of 16 bits, from 'frame_0000_000' on, reach '0.3%' of white")
    assert found.dark[0] in found.notes
    with pytest.raises(DataError, match=r"black for a screen. Save them with 8 bits"):
        refuse_dark({"train": found}, "frames.h5")


def test_survey__a_sample_is_spread_and_faults_hide_no_other_frame(tmp_path: Path) -> None:
    make_h5(tmp_path)
    with h5py.File(tmp_path / "frames.h5", "a") as file:
        file["label_0001_001_00"][0, 0] = 7
    frames = read_lists(UltrasoundData(root=tmp_path), ["train"])["train"]
    seen: list[int] = []
    found = survey(frames, sample=4, on_item=lambda: seen.append(1))
    assert [name.text for name in found.names] == [f"frame_{each:04d}_000" for each in range(4)]
    assert len(seen) == 4
    whole = survey(frames)
    assert len(whole.names) == 15
    with pytest.raises(InputError, match="'label_0001_001_00' holds the values '0, 1, 7'"):
        whole.refuse_faults("train")


def test_survey__observers_who_agree_on_no_pixel_are_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["frame_00000"] = IMAGE
        for observer in range(2):
            mask = np.zeros_like(IMAGE)
            mask[0, observer] = 1
            file[f"label_00000_{observer:02d}"] = mask
    found = survey(read_lists(UltrasoundData(root=tmp_path), ["train"])["train"])
    assert found.present.all()
    assert "on 1 frames most observers see the organ and agree on no pixel" in found.notes[1]


def test_refuse_shared_frames__the_same_picture_under_another_name(tmp_path: Path) -> None:
    black = np.zeros((5, 6), np.uint8)
    for place, (name, image) in enumerate({"train": IMAGE, "val": IMAGE[::-1], "test": IMAGE}.items()):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file[f"frame_{place:05d}"], file[f"label_{place:05d}_00"] = image, MASK
            file[f"frame_{place + 9:05d}"], file[f"label_{place + 9:05d}_00"] = black, MASK
    lists = read_lists(UltrasoundData(root=tmp_path), ["train", "val", "test"]).by_name
    found = {name: survey(each) for name, each in lists.items()}
    with pytest.raises(DataError, match="'frame_00002' of 'test' has the pixels of 'frame_00000' of 'train'") as told:
        refuse_shared_frames(found, str(tmp_path))
    assert len(told.value.problems) == 1
    refuse_shared_frames({name: found[name] for name in ("train", "val")}, str(tmp_path))
