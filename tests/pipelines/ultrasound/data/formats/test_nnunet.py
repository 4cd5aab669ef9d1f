"""nnU-Net's raw layout, to and from, through the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.ultrasound.__main__ import main
from pipelines.ultrasound.config import UltrasoundData
from pipelines.ultrasound.data.formats.folders import read_grey
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.data.observers import vote
from tests.pipelines.ultrasound.tiny import FRAMES, SUBJECTS, frame, make_h5


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    data = make_h5(tmp_path / "data")
    assert main(["convert-data", "--to", "nnunet", "--out", str(tmp_path / "raw"), f"data.root={data}"]) == 0
    return tmp_path / "raw"


def convert(raw: Path) -> int:
    return main(["convert-data", "--to", "folders", "--out", str(raw.parent / "back"), f"data.root={raw}"])


def test_to__layout_of_the_documentation_split_by_subject(raw: Path) -> None:
    described = json.loads((raw / "dataset.json").read_text())
    count = FRAMES * (SUBJECTS["train"] + SUBJECTS["val"])
    assert described == {
        "channel_names": {"0": "ultrasound"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": count,
        "file_ending": ".png",
    }
    images = sorted(path.name for path in (raw / "imagesTr").iterdir())
    assert (len(images), images[0]) == (count, "0000_00000_0000.png")
    [fold] = json.loads((raw / "splits_final.json").read_text())
    assert sorted(f"{case}_0000.png" for own in fold.values() for case in own) == images
    assert not {case[:4] for case in fold["train"]} & {case[:4] for case in fold["val"]}
    assert np.array_equal(read_grey(raw / "imagesTr" / "0000_00001_0000.png"), frame(0, 1)[0])
    assert np.array_equal(read_grey(raw / "labelsTr" / "0000_00001.png"), vote(frame(0, 1)[1]))
    assert len(list((raw / "labelsTs").iterdir())) == FRAMES * SUBJECTS["test"]


def test_back__same_frames_and_lists(raw: Path) -> None:
    assert convert(raw) == 0
    lists = read_lists(UltrasoundData(root=raw.parent / "back"), ["train", "val", "test"])
    assert {name: len(own) for name, own in lists.by_name.items()} == {
        name: FRAMES * SUBJECTS[name] for name in ("train", "val", "test")
    }
    found = lists["train"].read(1)
    assert np.array_equal(found.image, frame(0, 1)[0])
    assert np.array_equal(found.masks[0], vote(frame(0, 1)[1]))


def test_back__what_has_no_label_or_no_image_is_counted_and_in_no_list(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(raw / "labelsTs")  # those of a test list are rarely given
    gone = sorted((raw / "imagesTr").glob("0000_*"))
    (raw / "imagesTr" / "0000_00009.png").write_bytes(gone[0].read_bytes())
    (raw / "labelsTr" / "0777_00000.png").write_bytes(gone[0].read_bytes())
    assert convert(raw) == 0
    told = capsys.readouterr().out
    assert f"{FRAMES * SUBJECTS['test']} cases have no label and are left out." in told
    assert "1 files of imagesTr, such as '0000_00009.png', are of no case and left out." in told
    assert "1 files of labelsTr, such as '0777_00000.png', are of no case and left out." in told
    lists = read_lists(UltrasoundData(root=raw.parent / "back"), ["train", "val"])
    assert lists.splits is not None and lists.splits.lists["test"] == ()
    assert len(lists["val"]) == FRAMES * SUBJECTS["val"]


def test_back__refusals(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = json.loads((raw / "splits_final.json").read_text())
    splits[0]["val"].append(splits[0]["train"].pop())
    (raw / "splits_final.json").write_text(json.dumps(splits))
    assert convert(raw) == 2
    assert "is in 'train' and in 'val'" in capsys.readouterr().err
    (raw / "imagesTr" / "x_0000.png").write_bytes(b"")
    assert convert(raw) == 2
    assert "the case 'x' names no subject" in capsys.readouterr().err
    (raw / "dataset.json").write_text('{"labels": {"a": 0}, "channel_names": {}, "file_ending": ".png"}')
    assert convert(raw) == 2
    assert "0 channels and 1 labels" in capsys.readouterr().err
    assert not (raw.parent / "back").exists()
