import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.ultrasound.config import Shares, UltrasoundData
from pipelines.ultrasound.data.lists import read_lists
from tests.bad_inputs.dicoms import still
from tests.pipelines.ultrasound.tiny import FRAMES, make_h5
from vision_core.errors import ConfigError, DataError


def picture(path: Path, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(value, value + 30, dtype=np.uint8).reshape(5, 6)).save(path)


def labelled(folder: Path) -> None:
    picture(folder / "a.png")
    Image.fromarray(np.ones((5, 6), np.uint8)).save(folder / "a_obs00.png")


def test_read_lists__recorded_lists_beside_the_data_win_over_shares(tmp_path: Path) -> None:
    lists = read_lists(UltrasoundData(root=make_h5(tmp_path), shares=Shares(train=1, val=0, test=0)), ["train", "val"])
    assert lists["train"].subjects == tuple(f"{subject:04d}" for subject in range(4) for _ in range(FRAMES))
    assert set(lists["val"].subjects or ()) == {"0004", "0005"}
    assert lists["val"].read(1).name.text == "frame_0004_001"
    assert lists["val"].has_subjects


def test_read_lists__without_recorded_ones_every_subject_is_in_one_list_the_same_for_each_run(tmp_path: Path) -> None:
    (make_h5(tmp_path) / "splits.json").unlink()
    data = UltrasoundData(root=tmp_path / "frames.h5")
    lists = read_lists(data, ["train", "val", "test"])
    found = [set(lists[name].subjects or ()) for name in ("train", "val", "test")]
    assert [len(each) for each in found] == [7, 2, 2]
    assert len(set.union(*found)) == 11
    again = read_lists(data, ["test"])
    assert again.splits == lists.splits
    other = read_lists(data.model_copy(update={"split_seed": 1}), ["test"])
    assert other["test"].subjects != again["test"].subjects


def test_read_lists__flat_files_are_lists_themselves(tmp_path: Path) -> None:
    lists = read_lists(UltrasoundData(root=make_h5(tmp_path, layout="flat")), ["train", "test"])
    assert (len(lists["train"]), len(lists["test"])) == (16, 8)
    assert lists["train"].subjects is None
    assert not lists["train"].has_subjects
    assert lists.splits is None


def test_read_lists__folders_of_subjects_and_folders_of_lists(tmp_path: Path) -> None:
    for subject in ("p1", "p2"):
        labelled(tmp_path / "train" / subject)
    labelled(tmp_path / "val" / "p3")
    lists = read_lists(UltrasoundData(root=tmp_path), ["train", "val"])
    assert lists["train"].subjects == ("p1", "p2")
    shutil.move(tmp_path / "train" / "p2", tmp_path / "val" / "p1")
    with pytest.raises(DataError, match="subject 'p1' is in 'train' and in 'val'"):
        read_lists(UltrasoundData(root=tmp_path), ["train", "val"])


@pytest.mark.parametrize("kind", ["folders", "cines"])
def test_read_lists__files_below_the_folders_of_the_subjects_are_counted(kind: str, tmp_path: Path) -> None:
    for folder in (tmp_path / "train" / "p1", tmp_path / "train" / "p2" / "series"):
        if kind == "folders":
            labelled(folder)
            continue
        folder.mkdir(parents=True)
        still(folder / "a.dcm")
        Image.fromarray(np.ones((16, 16), np.uint8)).save(folder / "a_obs00.png")
    found = read_lists(UltrasoundData(root=tmp_path, outside="keep"), ["train"])
    assert found["train"].subjects == ("p1",)
    place, count = (Path("p2", "series", "a.png"), 2) if kind == "folders" else (Path("p2", "series", "a.dcm"), 1)
    told = f"{count} files lie below the folders of the subjects and are left out, such as '{place}'."
    assert f"'{tmp_path / 'train'}': {told}" in found.notes


@pytest.mark.parametrize("name", ["a.dcm", "a", "a.IMA"])
def test_read_lists__dicom_is_found_by_its_suffix_or_its_content(name: str, tmp_path: Path) -> None:
    for subject in ("p1", "p2"):
        (tmp_path / subject).mkdir()
        still(tmp_path / subject / name)
        Image.fromarray(np.ones((16, 16), np.uint8)).save(tmp_path / subject / "a_obs00.png")
    data = UltrasoundData(root=tmp_path, shares=Shares(train=0.5, val=0.5, test=0))
    lists = read_lists(data, ["train", "val"])
    assert len(lists["train"]) == len(lists["val"]) == 1
    assert lists["train"].read(0).image[3, 2] == 50


def test_read_lists__a_patient_under_two_names_in_two_lists_is_told(tmp_path: Path) -> None:
    def notes(**numbers: str) -> list[str]:
        for subject, number in numbers.items():
            folder = tmp_path / ("val" if subject == "c" else "train") / subject
            folder.mkdir(parents=True, exist_ok=True)
            still(folder / "x.dcm", PatientID=number)
            Image.fromarray(np.ones((16, 16), np.uint8)).save(folder / "x_obs00.png")
        found = read_lists(UltrasoundData(root=tmp_path, outside="keep"), ["train", "val"])
        return [note for note in found.notes if "PatientID" in note]

    [told] = notes(a="7", b="8", c="8")
    assert told.startswith("1 patients are in 'train' and in 'val' by their PatientID, such as 'b' and 'c': the score")
    assert not notes(a="7", b="8", c="9")
    assert not notes(a="0", b="0", c="0")  # of files without a person's number


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"split": "trian"}, r"The list 'trian' has '0' subjects. Lists by number of subjects: train \(4\)"),
        ({"root": "absent"}, "data.root '.*absent' does not exist"),
        ({"root": None}, "data.root is empty"),
    ],
)
def test_read_lists__what_is_not_there_is_named(change: dict[str, str | None], told: str, tmp_path: Path) -> None:
    make_h5(tmp_path)
    root = change.get("root", ".")
    data = UltrasoundData(root=tmp_path / root if root else None)
    with pytest.raises((ConfigError, DataError), match=told):
        read_lists(data, [change.get("split") or "train"])


@pytest.mark.parametrize("name", ["a.dcm", "a.nii.gz", "a.png"])
def test_read_lists__a_file_of_frames_is_no_folder_of_subjects(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"0")
    with pytest.raises(DataError, match=r"is a file of frames, whose masks lie beside. Give the folder of subjects"):
        read_lists(UltrasoundData(root=tmp_path / name), ["train"])


def test_read_lists__flat_frames_without_subjects_cannot_be_split(tmp_path: Path) -> None:
    make_h5(tmp_path, {"frames": 2}, layout="flat")
    with pytest.raises(DataError, match=r"names no subjects, .* Add subjects\.csv, or give a file for each list"):
        read_lists(UltrasoundData(root=tmp_path), ["train"])
    (tmp_path / "other.h5").write_bytes((tmp_path / "frames.h5").read_bytes())
    with pytest.raises(DataError, match=r"holds '2' HDF5 files \(frames\.h5, other\.h5\)"):
        read_lists(UltrasoundData(root=tmp_path), ["train"])
    (tmp_path / "other.h5").rename(tmp_path / "train.h5")
    with pytest.raises(ConfigError, match=r"holds train\.h5, and nothing for the list 'val'"):
        read_lists(UltrasoundData(root=tmp_path), ["train", "val"])
