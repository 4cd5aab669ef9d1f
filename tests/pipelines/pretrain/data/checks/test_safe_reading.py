"""DICOM files in ``predict``: listed beside images, and decoded in a child process."""

import logging
from pathlib import Path

import numpy as np
import pytest

from pipelines.pretrain.__main__ import main
from pipelines.pretrain.data.checks.safe_reading import list_inputs
from pipelines.pretrain.pipeline import PretrainPipeline
from tests.bad_inputs import labelled_images as museum
from tests.bad_inputs.dicoms import f06_crashing, ramp, still
from tests.pipelines.pretrain.test_predict import write_bundle
from vision_core.errors import DataError, InputError
from vision_core.images.untrusted import UntrustedImages, read_any_noted


def test_list_inputs__images_and_dicom_files_whatever_their_suffix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    for name in ("b.dcm", "IM0001", "1.2.840.7", "DICOMDIR"):
        still(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "out.dcm").symlink_to(still(tmp_path / "outside.dcm"))
    assert [path.name for path in list_inputs(folder)] == ["1.2.840.7", "IM0001", "b.dcm"]
    assert "out.dcm' is a link" in caplog.text
    museum.picture(folder / "a.png", ())
    assert [path.name for path in PretrainPipeline().inputs(folder)] == ["1.2.840.7", "IM0001", "a.png", "b.dcm"]


def test_list_inputs__a_folder_without_any(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"holds 0 images; 1 \.txt"):
        list_inputs(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        list_inputs(tmp_path / "absent")


def test_unknown_files__a_decoder_that_crashes_takes_nothing_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = UntrustedImages()
    with pytest.raises(InputError, match="made the decoder crash"):
        read(f06_crashing(tmp_path))
    cine = still(tmp_path / "cine.dcm", np.stack([ramp(), 255 - ramp()]), NumberOfFrames=2)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read(cine)[..., 0], ramp())
    assert "holds 2 frames; the first is used" in caplog.text
    museum.picture(tmp_path / "a.png", ())
    np.testing.assert_array_equal(read(tmp_path / "a.png"), read_any_noted(tmp_path / "a.png")[0])


def test_predict__a_folder_of_dicom_files(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "model")
    folder = tmp_path / "inputs"
    folder.mkdir()
    still(folder / "sound.dcm")
    f06_crashing(folder)
    command = ["predict", "--checkpoint", str(bundle), "--input", str(folder), "--out", str(tmp_path / "out")]
    assert main(command) == 4
    assert (tmp_path / "out" / "outputs" / "sound.json").exists()
    assert "made the decoder crash" in (tmp_path / "out" / "failures.csv").read_text()
