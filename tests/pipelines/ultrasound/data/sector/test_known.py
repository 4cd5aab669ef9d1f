"""Sectors of files to predict: remembered by machine and size, shown once, never taken where they do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.ultrasound.__main__ import main
from pipelines.ultrasound.data.files import open_file
from pipelines.ultrasound.data.sector.known import KnownSectors, read_sectors
from pipelines.ultrasound.predict import UltrasoundPredictor
from tests.bad_inputs.dicoms import still
from tests.pipelines.ultrasound.data.sector.pictures import cine, fan, words
from tests.pipelines.ultrasound.tiny import make_bundle
from vision_core.errors import DataError
from vision_core.images.untrusted import UntrustedImages
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import Segmenter

MACHINE = {"Manufacturer": "ACME", "ManufacturerModelName": "X1", "Modality": "US"}
BESIDE = ~fan() & (words() > 0)


def write(path: Path, frames: np.ndarray, **changes: object) -> Path:
    return still(path, frames if len(frames) > 1 else frames[0], NumberOfFrames=len(frames), **(MACHINE | changes))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model", ResidualUNet(Segmenter(layers=2, first=4)))


def test_predict__text_is_masked_shown_once_and_remembered_for_stills(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.dcm", cine())
    write(tmp_path / "in" / "b.dcm", cine(seed=1))
    write(tmp_path / "in" / "c.dcm", cine(1, seed=2))
    write(tmp_path / "in" / "d.dcm", cine(1, seed=3), ManufacturerModelName="X2")
    out = tmp_path / "out"
    command = ["predict", "--checkpoint", str(bundle), "--input", str(tmp_path / "in"), "--out", str(out)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert told.count("Outside the sector of 'ACME X1' at 240 x 320") == 1
    assert f"look at {out / 'sectors' / 'acme-x1-240x320.png'}" in told.replace("\n", " ")
    picture = np.asarray(Image.open(out / "sectors" / "acme-x1-240x320.png"))
    assert (picture[~fan()][BESIDE[~fan()]].std(axis=0) < 10).all()  # one colour where the words were
    notes = {name: json.loads((out / "outputs" / f"{name}.json").read_text())["notes"] for name in "abcd"}
    for name in "abc":
        assert any("lie outside the sector and are black for the networks." in note for note in notes[name])
    assert any("Nothing beside the sector is masked: a single frame" in note for note in notes["d"])
    [sector] = read_sectors(out / "sectors")
    write(tmp_path / "in" / "e.dcm", cine(1, seed=4))
    assert main(command) == 0  # remembered from the folder: a still has no motion
    assert "Outside the sector" not in capsys.readouterr().out
    assert any(
        "black for the networks" in note for note in json.loads((out / "outputs" / "e.json").read_text())["notes"]
    )
    assert read_sectors(out / "sectors") == [sector]


def test_predict__masks_are_those_of_frames_without_the_words_and_keep_leaves_them(
    bundle: Path, tmp_path: Path
) -> None:
    with_words, without = (write(tmp_path / f"{text}.dcm", cine(text=text, trace=text)) for text in (True, False))
    predictor = UltrasoundPredictor.from_checkpoint(bundle, "cpu")
    assert np.array_equal(np.asarray(predictor(with_words).masks), np.asarray(predictor(without).masks))
    streamed = [each.image for each in predictor.stream(with_words)]
    assert not (np.stack(streamed)[:, BESIDE] > 0).mean() > 0.02
    with UntrustedImages() as reader:
        file = open_file(with_words, reader)
        assert KnownSectors("keep").applied(file) is file
        assert (
            KnownSectors(None).applied(file).read(0)[BESIDE].max()
            < KnownSectors("keep").applied(file).read(0)[BESIDE].max()
        )


def test_applied__images_as_they_are_unless_asked_and_other_sectors_for_a_file_alone(tmp_path: Path) -> None:
    Image.fromarray(cine(1)[0]).save(tmp_path / "a.png")
    moved = write(tmp_path / "b.dcm", np.roll(cine(seed=5), 60, axis=2))
    usual = write(tmp_path / "a.dcm", cine())
    with UntrustedImages() as reader:
        image = open_file(tmp_path / "a.png", reader)
        assert KnownSectors(None).applied(image) is image
        assert "a single frame" in KnownSectors("mask").applied(image).notes[-1]
        known = KnownSectors(None)
        known.applied(open_file(usual, reader))
        assert (
            "the one that is remembered of its machine does not fit"
            in known.applied(open_file(moved, reader)).notes[-1]
        )


def test_remember__a_damaged_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sectors").mkdir()
    (tmp_path / "sectors" / "known.json").write_text('{"sectors": [{"machine": "X"}]}')
    with pytest.raises(DataError, match=r"known\.json' is damaged\. Remove it"):
        KnownSectors(None).remember_in(tmp_path)
