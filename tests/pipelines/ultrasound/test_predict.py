"""Prediction of files as they come: real DICOM of ultrasound, blank frames, pixels; and the files of a result."""

import csv
import gzip
import json
import shutil
import time
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import nibabel
import nrrd
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from pipelines.ultrasound import predict
from pipelines.ultrasound.__main__ import main
from pipelines.ultrasound.config import ScreenNetwork, UltrasoundConfig
from pipelines.ultrasound.data.files import FrameFile
from pipelines.ultrasound.predict import UltrasoundPredictor
from pipelines.ultrasound.screening.screen import Screen
from tests.bad_inputs.dicoms import still
from tests.pipelines.ultrasound.tiny import frame, make_bundle
from tests.vision_core.dicom.test_spacing import region
from vision_core.config.loading import load
from vision_core.errors import InputError
from vision_core.images.video import VideoFrames
from vision_core.results import OUTSIDE
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import Segmenter

REAL = {
    "ExplVR_BigEnd.dcm": (1, 60, 80),
    "examples_rgb_color.dcm": (1, 240, 320),
    "examples_palette.dcm": (1, 350, 800),
    "examples_jpeg2k.dcm": (1, 480, 640),
    "examples_ybr_color.dcm": (30, 240, 320),
}

FLOW = ("examples_rgb_color.dcm", "examples_jpeg2k.dcm")  # power Doppler over grey: not segmented


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained, and sure of much: its masks are not empty."""
    torch.manual_seed(0)
    network = ResidualUNet(Segmenter(layers=2, first=4))
    torch.nn.init.constant_(network.get_parameter("head.bias"), 0.1)
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model", network)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = Screen(ScreenNetwork(network="resnet10t", side_px=32))
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model", network, "method=screen")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predict__real_files_of_ultrasound_go_the_whole_way(segmenter: Path, tmp_path: Path) -> None:
    """They show no organ that the network knows: this is about reading alone."""
    (tmp_path / "in").mkdir()
    for name in REAL:
        path = get_testdata_file(name)
        assert isinstance(path, str)
        shutil.copy(path, tmp_path / "in")
    words = ["predict", "--checkpoint", str(segmenter), "--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    for name, (frames, height, width) in REAL.items():
        made = tmp_path / "out" / "outputs" / Path(name).stem
        record = json.loads(made.with_suffix(".json").read_text())
        assert (len(record["frames"]), record["height"], record["width"]) == (frames, height, width)
        assert record["spacing_mm"] is None
        assert "sizes are in pixels" in " ".join(record["notes"])
        table = rows(made.with_suffix(".frames.csv"))
        voxels = np.frombuffer(gzip.decompress(made.with_suffix(".masks.nii.gz").read_bytes()), np.uint8, offset=352)
        masks = voxels.reshape((frames, height, width))
        assert [float(row["area_px"] or 0) for row in table] == masks.sum(axis=(1, 2)).tolist()
        voxels, header = nrrd.read(str(made.with_suffix(".seg.nrrd")))
        assert np.array_equal(voxels.transpose(2, 1, 0), masks)
        assert header["Segment0_Name"] == "organ"
        assert "spacings" not in header
        if name in FLOW:
            assert not masks.any() and record["category"] == OUTSIDE
            continue
        found = dcmread(made.with_suffix(".seg.dcm"))
        assert np.array_equal(found.pixel_array.reshape(-1, height, width), masks[masks.any(axis=(1, 2))])


def test_predict__neutral_names_leave_no_other_in_any_file_of_the_results(
    segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "Quill"
    folder.mkdir()
    named = ["Zaphod_Quill.dcm", "Trillian.Quill"]
    for number, name in enumerate(named):
        still(folder / name, frame(number, 1)[0], PatientName="Quill^Z", StudyInstanceUID=f"1.2.{number}")
    (folder / "broken_Quill.dcm").write_bytes(bytes(128) + b"DICM")
    (folder / "about_Quill.txt").touch()
    words = ["predict", "--checkpoint", str(segmenter), "--input", str(folder), "--out", str(tmp_path / "plain")]
    assert main(words) == 4
    assert "In the name of 1 of the inputs stands the patient's name" in capsys.readouterr().out
    out, kept = tmp_path / "out", tmp_path / "map.csv"
    words = [*words[:-1], str(out), "--id-map", str(kept)]
    assert main(words) == 4
    told = capsys.readouterr()
    assert "about_Quill.txt" in told.out and "patient's name" not in told.out
    assert [row["case"] for row in rows(kept)] == ["case-0001", "case-0002", "case-0003"]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path.name.split(".")[0] for path in before if path.parent.name == "outputs"} == {"case-0001", "case-0002"}
    assert [
        path for path, content in before.items() if b"Quill" in content and path.suffixes[-2:] != [".seg", ".dcm"]
    ] == []
    still(folder / "Arthur.dcm", frame(2, 1)[0])
    assert main(words) == 4
    assert rows(kept)[3] == {"case": "case-0004", "input": str(folder / "Arthur.dcm")}
    assert (out / "ledger" / "0.jsonl").read_bytes().startswith(before[out / "ledger" / "0.jsonl"])
    done = [json.loads(line)["name"] for line in (out / "ledger" / "0.jsonl").read_text().splitlines()]
    assert sorted(done) == ["case-0001", "case-0002", "case-0003", "case-0003", "case-0004"]  # the broken one again


def test_predict__sizes_in_millimetres_where_the_file_states_one(segmenter: Path, tmp_path: Path) -> None:
    image = frame(0, 1)[0]
    inside = region(RegionLocationMaxX1=image.shape[1] - 1, RegionLocationMaxY1=image.shape[0] - 1)
    path = still(tmp_path / "a.dcm", image, SequenceOfUltrasoundRegions=[inside])
    predictor = UltrasoundPredictor.from_checkpoint(segmenter, "cpu")
    predictor.write(predictor(path), path, tmp_path)
    [row] = rows(tmp_path / "a.frames.csv")
    assert float(row["area_mm2"]) == pytest.approx(float(row["area_px"]) * 0.09, rel=1e-4)
    assert float(row["longest_mm"]) == pytest.approx(float(row["longest_px"]) * 0.3, rel=1e-4)
    assert not (tmp_path / "a.seg.dcm").exists()  # the file has no study to refer to, which is told


def test_predict__a_slice_with_a_place_keeps_it_in_all_files(segmenter: Path, tmp_path: Path) -> None:
    name = get_testdata_file("CT_small.dcm")
    assert isinstance(name, str)
    predictor = UltrasoundPredictor.from_checkpoint(segmenter, "cpu")
    found = predictor(name)
    predictor.write(found, name, tmp_path)
    assert found.masks is not None
    source, mask = dcmread(name), found.masks[0]
    row, column = np.argwhere(mask)[0]
    down, across = source.PixelSpacing
    point = np.add(source.ImagePositionPatient, [across * column, down * row, 0])  # it is not turned
    segmentation = dcmread(tmp_path / "CT_small.seg.dcm")
    assert segmentation.FrameOfReferenceUID == source.FrameOfReferenceUID
    [group] = segmentation.PerFrameFunctionalGroupsSequence
    assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
    image: Any = nibabel.load(tmp_path / "CT_small.masks.nii.gz")
    assert image.dataobj[column, row, 0] == 1
    assert image.affine @ [column, row, 0, 1] == pytest.approx([-point[0], -point[1], point[2], 1], rel=1e-5)
    header = nrrd.read_header(str(tmp_path / "CT_small.seg.nrrd"))
    moved = header["space directions"].T @ [column, row, 0] + header["space origin"]
    assert moved == pytest.approx(point)


def test_predict__a_video_of_a_cine_where_it_is_asked_for(segmenter: Path, tmp_path: Path) -> None:
    cine = np.stack([frame(0, number, (40, 1200))[0] for number in range(3)])
    path = still(tmp_path / "a.dcm", cine, NumberOfFrames=3, FrameTime="40")
    found = None
    for name, words in {"plain": [], "asked": ["results.video=true"]}.items():
        predictor = UltrasoundPredictor.from_checkpoint(segmenter, "cpu", load(UltrasoundConfig, None, words))
        found = found or predictor(path)
        assert all(each.exists() for each in predictor.write(found, path, tmp_path / name))
    assert not (tmp_path / "plain" / "a.overlay.mp4").exists()
    video = VideoFrames(tmp_path / "asked" / "a.overlay.mp4", max_frames=3)
    assert video.count == 3
    assert video.size[1] == 1024  # bounded
    assert np.diff(video.times_ms) == pytest.approx([40] * 2)
    # Where the outline is drawn, the picture has a colour; the frames themselves are grey.
    colours = video.read(1).astype(int)[:34]
    assert (colours[..., 0] - colours[..., 2]).max() > 60


def test_predict__frames_of_one_value_show_nothing_whatever_the_network_says(
    segmenter: Path, screen: Path, tmp_path: Path
) -> None:
    cine = np.stack([np.zeros((32, 36), np.uint8), frame(0, 1)[0], np.full((32, 36), 255, np.uint8)])
    still(tmp_path / "a.dcm", cine, NumberOfFrames=3)
    for bundle in (segmenter, screen):
        found = UltrasoundPredictor.from_checkpoint(bundle, "cpu")(tmp_path / "a.dcm")
        assert not found.accepted[[0, 2]].any()
        assert "2 frames hold a single value, black or saturated: not segmented." in found.notes


@pytest.mark.parametrize("kind", ["png", "dcm", "twelve", "h5", "nii"])
def test_predict__sixteen_bits_of_which_few_are_used_are_refused_before_a_screen(
    kind: str, segmenter: Path, screen: Path, tmp_path: Path
) -> None:
    """They would be black for it. A segmenter sees no difference, and says why its pictures are dark."""
    cine = np.stack([frame(0, number)[0] for number in range(2)]).astype(np.uint16)
    path = tmp_path / f"a.{'dcm' if kind == 'twelve' else kind}"

    def write(values: NDArray[np.uint16]) -> None:
        if kind == "png":
            Image.fromarray(values[1]).save(path)
        elif kind == "h5":
            with h5py.File(path, "w") as file:
                file["frame_0000_000"], file["frame_0000_001"] = values
        elif kind == "nii":
            nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.eye(4)), path)  # type: ignore[no-untyped-call]
        else:
            bits = {"BitsStored": 12, "HighBit": 11} if kind == "twelve" else {}
            still(path, values, NumberOfFrames=2, **bits)

    write(cine)
    with pytest.raises(InputError, match=r"frames of 16 bits, from '.*' on, reach '.*%' of white at most: black"):
        UltrasoundPredictor.from_checkpoint(screen, "cpu")(path)
    found = UltrasoundPredictor.from_checkpoint(segmenter, "cpu")(path)
    assert any("Masks of a segmenter do not depend on it; pictures are dark." in note for note in found.notes)
    largest = 4095 if kind == "twelve" else 65535
    for brightest in (largest, largest // 4):
        write((cine * np.float64(brightest / cine.max())).astype(np.uint16))
        bright = UltrasoundPredictor.from_checkpoint(screen, "cpu")(path)
        assert not any("of white at most" in note for note in bright.notes)


def test_stream__every_frame_comes_once_with_the_mask_of_the_whole_file(segmenter: Path) -> None:
    path = get_testdata_file("examples_ybr_color.dcm")
    assert isinstance(path, str)
    predictor = UltrasoundPredictor.from_checkpoint(segmenter, "cpu")
    whole, streamed = predictor(path), list(predictor.stream(path))
    assert [each.number for each in streamed] == list(range(30))
    assert [each.is_accepted for each in streamed] == whole.accepted.tolist()
    different = [int((each.mask != whole.masks[each.number]).sum()) for each in streamed]
    assert max(different) <= 2  # a batch of one is summed in another order
    assert min(each.seconds for each in streamed) > 0
    assert whole.seconds is not None and whole.seconds > 0


def test_stream__at_the_pace_of_a_camera_counts_from_when_a_frame_comes(
    segmenter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, image, begun = UltrasoundPredictor.from_checkpoint(segmenter, "cpu"), frame(0, 1)[0], []

    def read(_: int) -> NDArray[np.uint8]:
        begun.append(time.perf_counter())
        return image

    cine = FrameFile(texts=tuple(map(str, range(8))), read=read)
    monkeypatch.setattr(predict, "open_file", lambda *_: cine)
    streamed = []
    for found in predictor.stream("cine", rate=10.0):
        streamed.append(found)
        if found.number == 3:
            time.sleep(0.75)  # frames 4 to 7 come meanwhile, and only one of them is read ahead
    assert [each.number for each in streamed] == list(range(8))
    assert all(at - begun[0] >= 0.1 * number for number, at in enumerate(begun))  # none is read before it comes
    assert streamed[7].seconds > 0.3  # it had to wait to be read, and is counted from when it came


def test_stream__may_be_left_early(segmenter: Path) -> None:
    path = get_testdata_file("examples_ybr_color.dcm")
    assert isinstance(path, str)
    predictor = UltrasoundPredictor.from_checkpoint(segmenter, "cpu")
    stream = predictor.stream(path)
    assert next(stream).number == 0
    stream.close()  # type: ignore[attr-defined]  # waits for the frame that is being read
    assert next(predictor.stream(path)).number == 0


def test_predict__memory_does_not_grow_with_the_length_of_a_cine(segmenter: Path) -> None:
    predictor = UltrasoundPredictor.from_checkpoint(segmenter, "cpu")
    images = [frame(0, number, (96, 128))[0] for number in range(2)]  # one that repeats is not segmented

    def peak(count: int) -> int:
        cine = FrameFile(texts=tuple(map(str, range(count))), read=lambda number: images[number % 2])
        tracemalloc.start()
        try:
            assert len(predictor._predict("cine", cine)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(16)  # what is imported and kept once
    short, long = peak(16), peak(160)
    assert long - short < 160 * images[0].size / 8  # the masks alone would be eight times that


def test_predictor__takes_pixels(segmenter: Path) -> None:
    image = np.repeat(frame(0, 1)[0][..., None], 3, axis=2)
    found = UltrasoundPredictor.from_checkpoint(segmenter, "cpu")(image)
    assert (len(found), found.size) == (1, image.shape[:2])
    assert found.masks is not None
    assert found.present.tolist() == [bool(np.asarray(found.masks).any())]
    assert np.isnan(found.scores).all()


def test_predictor__a_screen_without_calibration_says_where_its_threshold_is(screen: Path) -> None:
    found = UltrasoundPredictor.from_checkpoint(screen, "cpu")(np.repeat(frame(0, 1)[0][..., None], 3, axis=2))
    assert found.masks is None
    assert found.present.tolist() == [bool(found.scores[0] > 0.5)]
    assert found.notes == ("The gate's threshold is 0.5: run calibrate to choose one.",)
