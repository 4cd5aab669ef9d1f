"""Training on frames that are black outside their sector."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.ultrasound.__main__ import main
from pipelines.ultrasound.config import UltrasoundConfig, UltrasoundData
from pipelines.ultrasound.data.formats.folders import read_grey
from pipelines.ultrasound.data.formats.nnunet import to_nnunet
from pipelines.ultrasound.data.lists import read_lists
from tests.pipelines.ultrasound.data.sector.pictures import SIZE, cine, fan
from tests.pipelines.ultrasound.data.sector.test_known import BESIDE, write
from tests.pipelines.ultrasound.tiny import train
from vision_core.errors import InputError
from vision_core.images.drawing import write_png

SHARES = {"train": 0.5, "val": 0.5, "test": 0.0}


def marked(path: Path, *, beside: bool = False) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[100:140, 120:160] = 255
    if beside:
        mask[:20, :60] = 255
    Image.fromarray(mask).save(path)


def make(root: Path, subjects: int = 2, frames: int = 3, **changes: bool) -> Path:
    for subject in range(subjects):
        folder = root / f"p{subject}"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "a.dcm", cine(frames, seed=subject))
        for number in range(frames):
            marked(folder / f"a_{number:03d}_obs00.png", **changes)
    return root


def read(root: Path, **changes: object) -> tuple[np.ndarray, tuple[str, ...]]:
    data = UltrasoundData.model_validate({"root": root, "shares": SHARES} | changes)
    frames = read_lists(data, ["train"])["train"]
    return np.stack([frames.read(index).image for index in range(len(frames))]), frames.notes


def test_lists__dicom_is_masked_and_keep_leaves_it(tmp_path: Path) -> None:
    make(tmp_path)
    images, notes = read(tmp_path)
    assert (images[:, BESIDE] > 0).mean() < 0.02
    assert (images[:, fan()] > 0).all()
    assert [note for note in notes if "Outside the sector of 'ACME X1' at 240 x 320" in note]
    images, notes = read(tmp_path, outside="keep")
    assert (images[:, BESIDE] > 0).all()
    assert notes == ()


def test_lists__images_are_kept_unless_asked(tmp_path: Path) -> None:
    for subject in ("p0", "p1"):
        (tmp_path / subject).mkdir()
        for number, frame in enumerate(cine(3, seed=len(subject))):
            write_png(tmp_path / subject / f"{number}.png", np.repeat(frame[..., None], 3, axis=2))
            marked(tmp_path / subject / f"{number}_obs00.png")
    assert (read(tmp_path)[0][:, BESIDE] > 0).all()
    images, notes = read(tmp_path, outside="mask")
    assert (images[:, BESIDE] > 0).mean() < 0.02
    assert "of 'unknown machine' at 240 x 320" in notes[-1]


def test_lists__stills_of_a_machine_are_compared_with_each_other(tmp_path: Path) -> None:
    make(tmp_path, subjects=6, frames=1)
    assert (read(tmp_path)[0][:, BESIDE] > 0).mean() < 0.02


def test_lists__what_observers_have_marked_is_never_masked(tmp_path: Path) -> None:
    make(tmp_path, beside=True)
    with pytest.raises(InputError, match=r"of what observers marked lie outside the sector.*data\.outside=keep"):
        read(tmp_path)


def test_lists__a_file_that_does_not_fit_is_left_and_told(tmp_path: Path) -> None:
    make(tmp_path, subjects=2)
    other = cine(3, seed=7, trace=False)
    other[:, 25:80, 250:310] = np.random.default_rng(0).integers(20, 200, (3, 55, 60))  # another live picture
    write(tmp_path / "p1" / "a.dcm", other)
    images, notes = read(tmp_path, shares={"train": 1.0, "val": 0.0, "test": 0.0})
    assert (images[:3, BESIDE] > 0).mean() < 0.02
    assert np.array_equal(images[3:], other)
    assert any("p1/a.dcm' and 0 others of 'ACME X1' at 240 x 320 are not masked" in note for note in notes)


def test_convert_data__frames_of_nnunet_are_masked_and_it_is_told(tmp_path: Path) -> None:
    data = {"root": make(tmp_path / "data"), "shares": SHARES, "eval_split": None}
    lines = to_nnunet(UltrasoundConfig.model_validate({"data": data}), tmp_path / "out")
    assert any("Outside the sector of 'ACME X1'" in line for line in lines)
    images = [read_grey(path) for path in (tmp_path / "out" / "imagesTr").iterdir()]
    assert (np.stack(images)[:, BESIDE] > 0).mean() < 0.02


@pytest.mark.slow
def test_train__the_sector_goes_into_bundle_and_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "data", subjects=4)
    shares = ["data.shares.train=0.5", "data.shares.val=0.25", "data.shares.test=0.25"]
    more = ["data.size_px=[32,36]", "train.batch_size=2", "train.epochs=1", *shares]
    assert train(tmp_path / "out", tmp_path / "data", *more) == 0
    assert capsys.readouterr().out.count("Outside the sector of 'ACME X1'") == 1
    bundle = str(tmp_path / "out" / "model")
    assert main(["evaluate", "--checkpoint", bundle]) == 0
    assert capsys.readouterr().out.count("Outside the sector of 'ACME X1'") == 1
    card = json.loads((tmp_path / "out" / "model" / "card.json").read_text())
    [record] = card["preprocessing"]["sectors"]
    assert (record["machine"], record["size"]) == ("ACME X1", list(SIZE))
    assert (tmp_path / "out" / "sectors" / "acme-x1-240x320.png").exists()
